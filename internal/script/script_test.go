package script

import (
	"fmt"
	"strings"
	"testing"
)

func add(c Command) string {
	return fmt.Sprintf("%d %s %v\n", c.Int("a", 1)+c.Int("b", 1), c.String("note", "none"), c.Bool("loud"))
}

func TestReplayComparesBlocks(t *testing.T) {
	f := func(text, now string, wrong ...string) {
		t.Helper()
		got, diffs := replay(t, "x.txt", text, add)
		if got != now {
			t.Errorf("replay of\n%s\ngives\n%s\nwant\n%s", text, got, now)
		}
		if len(diffs) != len(wrong) {
			t.Fatalf("replay of\n%s\nfinds %q", text, diffs)
		}
		for i := range wrong {
			if !strings.Contains(diffs[i], wrong[i]) {
				t.Errorf("difference %q lacks %q", diffs[i], wrong[i])
			}
		}
	}
	right := "# sum\nadd a=2 b=3 loud\nadd note=x\n----\n5 none true\n2 x false\n\nadd\n----\n2 none false\n"
	f(right, right)
	f("add\n----\n", "add\n----\n2 none false\n", "x.txt:2: printed\n2 none false")
	f("add\n----\n3\n\n# end\n", "add\n----\n2 none false\n\n# end\n", "want\n3\n")
	f("add\n", "add\n", "after the last ----")
}

func TestRunPlaysFiles(t *testing.T) {
	Run(t, "testdata/*.txt", func(*testing.T) func(Command) string { return add })
}
