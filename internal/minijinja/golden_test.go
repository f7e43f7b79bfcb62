package minijinja

import (
	"encoding/json"
	"os"
	"testing"
)

func testLimits() Limits {
	return Limits{Steps: 1_000_000, Memory: 16 << 20, Output: 1 << 20, Depth: 2000}
}

// unsafeName is refused at once here; Jinja2 gives an undefined value that
// prints as nothing and fails when it is used.
const unsafeName = `{{ "".__class__ }}`

// TestJinja2 compares snippets with what Jinja2 makes of them; see testdata/golden.py.
func TestJinja2(t *testing.T) {
	data, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Names   map[string]json.RawMessage
		Results []struct{ Source, Want, Fails string }
	}
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	vars := map[string]Value{}
	for name, raw := range g.Names {
		if vars[name], err = FromJSON(raw); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range g.Results {
		got, err := renderSource(r.Source, vars)
		switch {
		case r.Source == unsafeName:
		case r.Fails != "" && err == nil:
			t.Errorf("%s\n gives %q, Jinja2 fails: %s", r.Source, got, r.Fails)
		case r.Fails == "" && err != nil:
			t.Errorf("%s\n fails: %v\n want %q", r.Source, err, r.Want)
		case r.Fails == "" && got != r.Want:
			t.Errorf("%s\n gives %q\n want  %q", r.Source, got, r.Want)
		}
	}
}

func renderSource(source string, vars map[string]Value) (string, error) {
	tmpl, err := Parse(source, Options{})
	if err != nil {
		return "", err
	}
	return tmpl.Render(vars, testLimits())
}
