package mem

import (
	"strings"
	"testing"
)

func TestScriptsAreRead(t *testing.T) {
	f := func(script string, want int, errWith string) {
		t.Helper()
		s, err := Parse(script)
		if errWith != "" {
			if err == nil || !strings.Contains(err.Error(), errWith) {
				t.Errorf("%q: error %v, want %q", script, err, errWith)
			}
			return
		}
		if err != nil || len(s) != want {
			t.Errorf("%q: %v %v", script, s, err)
		}
	}
	f("", 0, "")
	f("# nothing\n\n", 0, "")
	f("down corrupt byte 5; up delay frame 5 1ms # so\n down conn 3 kill frame 9 +12", 3, "")
	f("down reorder frame 1; down duplicate frame 2; up half-close byte 0; up stall frame 0; down truncate frame 4 +9", 5, "")
	f("sideways kill byte 1", 0, "up or down")
	f("up melt byte 1", 0, "unknown action")
	f("up kill", 0, "bad place")
	f("up kill frame -1", 0, "bad place")
	f("up kill page 1", 0, "wants frame N")
	f("up reorder byte 1", 0, "wants frame N")
	f("up delay frame 1", 0, "wants a time")
	f("up delay frame 1 soon", 0, "bad delay")
	f("up kill frame 1 2s", 0, "what does")
	f("up conn x kill frame 1", 0, "conn wants")
	f("up corrupt frame 1 +x", 0, "bad offset")
}

func FuzzScript(f *testing.F) {
	f.Add("down conn 3 kill frame 9 +12; up delay byte 7 2ms")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		for _, r := range s {
			again, err := Parse(r.String())
			if err != nil || len(again) != 1 || again[0] != r {
				t.Fatalf("%q: %+v, %v", r, again, err)
			}
		}
	})
}
