package script

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what script tests print into their files")

// Command is one line of a script.
type Command struct {
	Name  string
	Args  []string // the words without "="
	named map[string]string
	where string
	t     testing.TB
}

// Run plays every file that matches the pattern, each as a subtest. start gives
// the function that carries out one file's commands; what it returns for a
// command is printed.
func Run(t *testing.T, pattern string, start func(t *testing.T) func(Command) string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("cannot find scripts %s: %v", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			play(t, file, start(t))
		})
	}
}

func play(t *testing.T, file string, do func(Command) string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, wrong := replay(t, file, string(raw), do)
	if *rewrite && got != string(raw) {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

// replay runs a script and returns it with the output it has now, and every
// block whose output differs.
func replay(t testing.TB, file, text string, do func(Command) string) (now string, wrong []string) {
	var out, printed strings.Builder
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		out.WriteString(line + "\n")
		if line != "----" {
			if c, ok := parse(t, fmt.Sprintf("%s:%d", file, i+1), line); ok {
				printed.WriteString(do(c))
			}
			continue
		}
		var want strings.Builder
		at := i + 1
		for i+1 < len(lines) && lines[i+1] != "" {
			i++
			want.WriteString(lines[i] + "\n")
		}
		if got := printed.String(); got != want.String() {
			wrong = append(wrong, fmt.Sprintf("%s:%d: printed\n%swant\n%s", file, at, got, want.String()))
		}
		out.WriteString(printed.String())
		printed.Reset()
	}
	if printed.Len() > 0 {
		wrong = append(wrong, fmt.Sprintf("%s: printed after the last ----:\n%s", file, printed.String()))
	}
	return out.String(), wrong
}

func parse(t testing.TB, where, line string) (Command, bool) {
	words := strings.Fields(line)
	if len(words) == 0 || strings.HasPrefix(words[0], "#") {
		return Command{}, false
	}
	c := Command{Name: words[0], named: make(map[string]string), where: where, t: t}
	for _, w := range words[1:] {
		if name, value, ok := strings.Cut(w, "="); ok {
			c.named[name] = value
		} else {
			c.Args = append(c.Args, w)
		}
	}
	return c, true
}

// Arg is the i-th word; the test fails if there is none.
func (c Command) Arg(i int) string {
	if i >= len(c.Args) {
		c.Fatalf("%s lacks an argument", c.Name)
	}
	return c.Args[i]
}

// String is a named argument, or the default.
func (c Command) String(name, otherwise string) string {
	if v, ok := c.named[name]; ok {
		return v
	}
	return otherwise
}

// Int is a named argument that is a whole number, or the default.
func (c Command) Int(name string, otherwise int) int {
	v, ok := c.named[name]
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		c.Fatalf("%s=%s is not a whole number", name, v)
	}
	return n
}

// Bool reports whether word is among the arguments.
func (c Command) Bool(word string) bool {
	return slices.Contains(c.Args, word)
}

// Fatalf fails the test, naming the script's line.
func (c Command) Fatalf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("%s: %s", c.where, fmt.Sprintf(format, args...))
}
