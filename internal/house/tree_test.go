package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/terse-llm/terse"

// source is one Go file of the main module.
type source struct {
	path string // slash-separated, from the module's root
	dir  string // its package's directory, "" for the root
	test bool
	ast  *ast.File
}

// third is code of others kept in the tree; size and style rules pass it over.
func third(dir string) bool {
	return dir == "internal/minijinja" || strings.HasPrefix(dir, "internal/minijinja/")
}

type tree struct {
	fset  *token.FileSet
	files []source
}

// load parses every Go file of the main module (nested modules and testdata
// excluded).
func load(t *testing.T) tree {
	t.Helper()
	root := filepath.Join("..", "..")
	tr := tree{fset: token.NewFileSet()}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if d.IsDir() {
			if rel != "." && skipDir(p, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(tr.fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		slash := filepath.ToSlash(rel)
		dir := path.Dir(slash)
		if dir == "." {
			dir = ""
		}
		tr.files = append(tr.files, source{slash, dir, strings.HasSuffix(slash, "_test.go"), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.files) < 20 {
		t.Fatalf("found only %d Go files: the walk is broken", len(tr.files))
	}
	return tr
}

func skipDir(p, name string) bool {
	if name == "testdata" || name[0] == '.' || name[0] == '_' {
		return true
	}
	_, err := os.Stat(filepath.Join(p, "go.mod"))
	return err == nil
}
