package cases

import (
	"strings"
	"testing"
)

// Every work has a name of its own and, if it is compared, a partner in its
// group; and it moves or computes something.
func TestWorks(t *testing.T) {
	works := map[string]Work{}
	for _, w := range Works() {
		if _, twice := works[w.Name]; twice {
			t.Errorf("%s is there twice", w.Name)
		}
		works[w.Name] = w
		if w.Bytes <= 0 || w.Units <= 0 || w.Unit == "" || w.Group == "" || w.Setup == nil {
			t.Errorf("%s lacks something: %+v", w.Name, w)
		}
	}
	for name, w := range works {
		if base, ok := works[w.Base]; w.Base != "" && (!ok || base.Group != w.Group) {
			t.Errorf("%s is compared with %q, which is not in its group", name, w.Base)
		}
		coded := strings.HasPrefix(name, "attend") && !strings.HasSuffix(name, "f16")
		if coded != (w.Base != "") {
			t.Errorf("%s is compared with %q", name, w.Base)
		}
	}
}

// A repeated cache reads like the one it repeats, in the forms that are read.
func TestRepeat(t *testing.T) {
	for _, f := range Formats() {
		c, err := NewCache(f, 2, 64, 256, 1)
		if err != nil {
			t.Fatal(err)
		}
		r := c.Repeat(1000)
		bytes := 0
		for _, tile := range r.Tiles(1000) {
			from := c.Geometry.Format.PageTokens
			page := tile.First / from % (256 / from)
			if (tile.Exact == nil) == (!tile.KCoded || !tile.VCoded) || (tile.Coded == nil) == (tile.KCoded || tile.VCoded) {
				t.Fatalf("%v: tile at %d has the wrong forms", f, tile.First)
			}
			if tile.Exact != nil && string(tile.Exact) != string(c.Exact[page]) || tile.Coded != nil && string(tile.Coded) != string(c.Coded[page]) {
				t.Fatalf("%v: tile at %d is not page %d", f, tile.First, page)
			}
			bytes += tile.Hi - tile.Lo
		}
		if bytes != 1000 || r.bytes() <= 0 {
			t.Errorf("%v: tiles cover %d tokens, %d bytes", f, bytes, r.bytes())
		}
	}
}

func TestWeights(t *testing.T) {
	for _, l := range Linears() {
		if w, bulk := l.Weights(1), l.BulkWeights(1); len(w.Data) != len(bulk.Data) || len(w.Data) != l.Type.RowBytes(l.Out*l.In) {
			t.Errorf("%v: %d and %d bytes", l, len(w.Data), len(bulk.Data))
		}
	}
}
