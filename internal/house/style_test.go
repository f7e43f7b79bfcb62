package house

import (
	"bytes"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every package has exactly one package comment, in doc.go.
func TestPackageComments(t *testing.T) {
	docs := map[string][]string{}
	all := map[string]bool{}
	for _, f := range load(t).files {
		if f.test || third(f.dir) {
			continue
		}
		all[f.dir] = true
		if f.ast.Doc != nil {
			docs[f.dir] = append(docs[f.dir], f.path)
		}
	}
	for dir := range all {
		d := docs[dir]
		if len(d) != 1 || filepath.Base(d[0]) != "doc.go" {
			t.Errorf("package %q: want one package comment, in doc.go; have %v", dir, d)
		}
	}
}

// The limits of CONTRIBUTING.md. Kernels are exempt from the function limit.
const (
	maxFile     = 800
	maxFunc     = 100
	maxFuncP95  = 50
	exemptFuncs = "kernels"
)

func TestSizes(t *testing.T) {
	tr := load(t)
	var lengths []int
	for _, f := range tr.files {
		if third(f.dir) {
			continue
		}
		file := tr.fset.File(f.ast.Pos())
		if n := file.LineCount(); n > maxFile {
			t.Errorf("%s has %d lines, limit %d", f.path, n, maxFile)
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			n := file.Line(fn.Body.End()) - file.Line(fn.Body.Pos()) - 1
			if n > maxFunc && !under(f.dir, exemptFuncs) && !f.test {
				t.Errorf("%s: %s has %d lines, limit %d", f.path, fn.Name.Name, n, maxFunc)
			}
			if !f.test {
				lengths = append(lengths, n)
			}
		}
	}
	slices.Sort(lengths)
	if p95 := lengths[len(lengths)*95/100]; p95 > maxFuncP95 {
		t.Errorf("95th percentile of function length is %d lines, limit %d", p95, maxFuncP95)
	}
}

// No init functions, no packages named after nothing.
func TestNoInitNoUtil(t *testing.T) {
	for _, f := range load(t).files {
		if third(f.dir) {
			continue
		}
		switch f.ast.Name.Name {
		case "util", "utils", "common", "helpers", "misc":
			t.Errorf("%s: package %s says nothing", f.path, f.ast.Name.Name)
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init function", f.path)
			}
		}
	}
}

// Deciding is pure: no clock, goroutine or I/O in sched and route.
func TestDecidersArePure(t *testing.T) {
	for _, f := range load(t).files {
		if f.test || !under(f.dir, "sched") && !under(f.dir, "route") {
			continue
		}
		for _, imp := range f.ast.Imports {
			switch strings.Trim(imp.Path.Value, `"`) {
			case "os", "net", "net/http", "sync", "math/rand", "math/rand/v2", "context", "log", "log/slog":
				t.Errorf("%s imports %s", f.path, imp.Path.Value)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine", f.path)
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Sleep", "After"}, n.Sel.Name) {
					t.Errorf("%s calls time.%s", f.path, n.Sel.Name)
				}
			}
			return true
		})
	}
}

// The README's first command stands by line 20, and its commands are the ones
// that CI runs.
func TestREADME(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), "go run ./cmd/terse serve") })
	if at < 0 || at >= 20 {
		t.Errorf("README.md: first working command on line %d, want by 20", at+1)
	}
	if !strings.Contains(string(b), "go test ./...") {
		t.Error("README.md does not give the test command")
	}
}

// The project speaks of itself alone.
func TestNoMachinePaths(t *testing.T) {
	bad := regexp.MustCompile(`/work/|/tmp/[a-z]|\.\./shared/`)
	for _, f := range load(t).files {
		b, err := os.ReadFile(filepath.Join("..", "..", f.path))
		if err != nil {
			t.Fatal(err)
		}
		if f.dir == "internal/house" {
			continue
		}
		if m := bad.Find(b); m != nil {
			line := bytes.Count(b[:bytes.Index(b, m)], []byte("\n")) + 1
			t.Errorf("%s:%d names a path of one machine: %s", f.path, line, m)
		}
	}
}
