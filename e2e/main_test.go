package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/eval"
	"github.com/terse-llm/terse/internal/defaultmodel"
	"github.com/terse-llm/terse/tokenizer"
)

var (
	full  = flag.Bool("full", false, "run everything: minutes of computing, and network namespaces where the user is root")
	given = flag.String("program", "", "the terse binary to test, where there is no Go to build it with")
)

// needFull skips what is too slow for every go test ./...
func needFull(t *testing.T) {
	t.Helper()
	if !*full {
		t.Skip("slow: run with -full")
	}
}

// formats are the KV formats of this version.
func formats() []string {
	return []string{"f16", "hq2", "hq2b", "hq3", "hq4", "hack", "hack:v2", "int8", "int4", "kivi", "cachegen", "kvquant"}
}

var program string // the built binary

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "terse-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if program = *given; program != "" {
		return m.Run()
	}
	program = filepath.Join(dir, "terse")
	build := exec.Command("go", "build", "-o", program, "../cmd/terse")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// corpus is 8,000 tokens of text that the default model was not trained on.
var corpus = sync.OnceValues(func() ([]terse.Token, error) {
	tok, err := tokenizer.Load(defaultmodel.FS())
	if err != nil {
		return nil, err
	}
	docs, err := eval.Text("children")
	if err != nil {
		return nil, err
	}
	encode := func(s string) ([]terse.Token, error) { return tok.Encode(s, tokenizer.EncodeOptions{}) }
	windows, err := eval.Windows(docs, encode, 0, 8000, 1)
	if err != nil {
		return nil, err
	}
	return windows[0], nil
})

// passage is n tokens of the corpus from a token on. Prompts that begin at
// different tokens share no page.
func passage(t *testing.T, from, n int) []terse.Token {
	t.Helper()
	all, err := corpus()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(all[from : from+n])
}
