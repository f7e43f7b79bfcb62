package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/terse-llm/terse/internal/synthetic"
	"github.com/terse-llm/terse/kernels/cuda/cudatest"
)

// TestMain makes the scripts' command terse this test binary, which then is
// the program.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"terse": main})
}

// TestScripts runs the command line as users do; the scripts are in
// testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			for name, path := range map[string]string{"DOCS": "docs", "TRACES": "workload/testdata"} {
				abs, err := filepath.Abs(filepath.Join("..", "..", path))
				if err != nil {
					return err
				}
				e.Setenv(name, abs)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"emulated":  emulated(t),
			"exits":     exits,
			"listen":    listen,
			"model":     copyModel,
			"synthetic": writeSynthetic,
		},
	})
}

// emulated has programs find an emulated GPU, or skips the script where there is none.
func emulated(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 0 {
			ts.Fatalf("usage: emulated")
		}
		ts.Setenv("LD_LIBRARY_PATH", filepath.Dir(cudatest.Emulator(t)))
	}
}

// listen VAR takes a free port until the script ends; VAR is its address.
func listen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listen VAR")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

// copyModel DIR makes a directory with the built-in model's files, to be changed.
func copyModel(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: model DIR")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o755))
	source, err := filepath.Abs(filepath.Join("..", "..", "internal", "defaultmodel"))
	ts.Check(err)
	for _, pattern := range []string{"*.json", "*.safetensors", "kv.calibration"} {
		files, err := filepath.Glob(filepath.Join(source, pattern))
		ts.Check(err)
		if len(files) == 0 {
			ts.Fatalf("the built-in model has no %s", pattern)
		}
		for _, f := range files {
			ts.Check(os.Symlink(f, filepath.Join(dir, filepath.Base(f))))
		}
	}
}

// writeSynthetic FILE TYPE writes a tiny GGUF file of random weights; a file name
// with "merged" in it gets a vocabulary of merges.
func writeSynthetic(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: synthetic FILE TYPE")
	}
	shape, err := synthetic.ShapeOf("tiny")
	ts.Check(err)
	dt, err := synthetic.TypeOf(args[1])
	ts.Check(err)
	if strings.Contains(args[0], "merged") {
		shape.Words, shape.RopeDivisors, shape.Tied = synthetic.Merged, true, true
	}
	ts.Check(synthetic.WriteFile(ts.MkAbs(args[0]), shape, dt, 1))
}

// exits STATUS PROGRAM ARGS... runs a program that must exit with a status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARGS...")
	}
	status := 0
	var failed *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failed) {
		status = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if want := args[0]; strconv.Itoa(status) != want {
		ts.Fatalf("exit status %d, want %s", status, want)
	}
}
