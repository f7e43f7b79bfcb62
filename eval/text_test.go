package eval

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/terse-llm/terse"
)

// The shipped texts are beginnings of longer ones, cut after the six windows
// that published figures are computed on. The hashes are of the token ids (32
// bits each, little endian) of those windows, computed from the uncut texts.
func TestWindowsArePinned(t *testing.T) {
	tok := defaultTokenizer(t)
	end, _ := tok.ID("<|endoftext|>")
	f := func(name, want string) {
		t.Helper()
		docs, err := Text(name)
		if err != nil {
			t.Fatal(err)
		}
		windows, err := Windows(docs, encoder(tok), end, 4096, 6)
		if err != nil {
			t.Fatal(err)
		}
		if len(windows) != 6 {
			t.Fatalf("%s: %d windows, want 6", name, len(windows))
		}
		if got := hash(windows); got != want {
			t.Errorf("%s: windows hash to %s, want %s", name, got, want)
		}
	}
	f("books", "7de9243c769f73b3")
	f("children", "f1010069d5cfdf89")
	f("go", "526a1a3fd304def4")
}

func hash(windows [][]terse.Token) string {
	h := sha256.New()
	for _, w := range windows {
		for _, id := range w {
			h.Write(binary.LittleEndian.AppendUint32(nil, uint32(id)))
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}
