package mem

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestScriptsAreRead(t *testing.T) {
	f := func(script string, want int, errWith string) {
		t.Helper()
		faults, err := ParseScript(script)
		if errWith != "" {
			if err == nil || !strings.Contains(err.Error(), errWith) {
				t.Errorf("%q: error %v, want %q", script, err, errWith)
			}
			return
		}
		if err != nil || len(faults) != want {
			t.Errorf("%q: %v %v", script, faults, err)
		}
	}
	f("", 0, "")
	f("corrupt@5; delay@5=1ms ;cut@9", 3, "")
	f("cut@9; corrupt@5", 0, "rise")
	f("cut", 0, "ACTION@OFFSET")
	f("cut@-1", 0, "offset")
	f("cut@1=2s", 0, "only delay")
	f("delay@1", 0, "delay")
	f("melt@1", 0, "unknown")
}

func TestFaultsHitTheirByte(t *testing.T) {
	f := func(script, want string, wantErr error) {
		t.Helper()
		faults, err := ParseScript(script)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = pipe(&out, strings.NewReader("abcdefghij"), faults, nil)
		if out.String() != want || !errors.Is(err, wantErr) {
			t.Errorf("%q: %q, %v; want %q, %v", script, out.String(), err, want, wantErr)
		}
	}
	f("", "abcdefghij", io.EOF)
	f("corrupt@0", "qbcdefghij", io.EOF)
	f("drop@3; drop@4", "abcfghij", io.EOF)
	f("corrupt@9", "abcdefghiz", io.EOF)
	f("delay@2=1ms; cut@5", "abcde", errCut)
}
