package kvcache

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/internal/script"
	"github.com/terse-llm/terse/quant"
)

// Pages of four tokens keep the scripts readable. An exact page costs 10 bytes
// and a coded page 3.
const (
	exactCost = 10
	codedCost = 3
)

var formats = map[string]quant.Format{
	"f16":     {Name: "f16", Family: quant.FamilyF16, PageTokens: 4},
	"hq":      {Name: "hq2", Family: quant.FamilyHQ, PageTokens: 4, Sinks: 4, Recent: 8},
	"hack":    {Name: "hack", Family: quant.FamilyHack, PageTokens: 4, Partition: 2},
	"hack:v2": {Name: "hack:v2", Family: quant.FamilyHackV2, PageTokens: 4, Partition: 4, Sinks: 2, ExactPrefill: true},
}

func testCache(t testing.TB, format string, budget int64) *Cache {
	t.Helper()
	f, ok := formats[format]
	if !ok {
		t.Fatalf("no format %q", format)
	}
	c, err := newCache(&quant.Geometry{Format: f, Layers: 1, KVHeads: 1, HeadDim: 1}, budget, exactCost, codedCost)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txt", func(t *testing.T) func(script.Command) string {
		b := &books{tables: make(map[string]*Table)}
		return func(c script.Command) string {
			out := b.do(t, c)
			if b.c != nil {
				if err := b.check(); err != nil {
					c.Fatalf("%v", err)
				}
			}
			return out
		}
	})
}

// books is a cache with named tables.
type books struct {
	c      *Cache
	tables map[string]*Table
}

func (b *books) check() error {
	return b.c.Check(slices.Collect(maps.Values(b.tables))...)
}

func (b *books) do(t *testing.T, c script.Command) string {
	if c.Name == "cache" {
		b.c = testCache(t, c.Arg(0), int64(c.Int("budget", 1000)))
		clear(b.tables)
		return ""
	}
	if c.Name == "stats" {
		return fmt.Sprintf("%+v\n", b.c.Stats())
	}
	name := c.Arg(0)
	tab := b.tables[name]
	if tab == nil {
		tab = &Table{}
		b.tables[name] = tab
	}
	n, promptLen := c.Int("n", 0), c.Int("prompt", c.Int("n", 0))
	switch c.Name {
	case "grow":
		need := b.c.NeedBytes(tab, n, promptLen)
		if !b.c.Grow(tab, n, promptLen) {
			return fmt.Sprintf("%s: no room for %d bytes more\n", name, need)
		}
	case "reserve":
		need := b.c.ReserveBytes(tab, n)
		if !b.c.Reserve(tab, n) {
			return fmt.Sprintf("%s: no room for %d bytes\n", name, need)
		}
	case "trim":
		b.c.Trim(tab, n, promptLen)
	case "free":
		b.c.Free(tab)
	case "commit":
		b.c.Commit(tab, tokens(t, c.String("tokens", "")), n)
	case "match":
		_, got := b.c.Match(tokens(t, c.String("tokens", "")))
		*tab = got
	default:
		c.Fatalf("no command %q", c.Name)
	}
	return fmt.Sprintf("%s: exact %s coded %s, %d bytes\n", name, ids(tab.Exact), ids(tab.Coded), b.c.Bytes(tab))
}

func ids(pages []PageID) string {
	var out []string
	for _, id := range pages {
		if id == None {
			out = append(out, ".")
		} else {
			out = append(out, strconv.Itoa(int(id)))
		}
	}
	return "[" + strings.Join(out, " ") + "]"
}

// tokens reads "1-8,90-93": runs of token ids.
func tokens(t *testing.T, spec string) []terse.Token {
	var out []terse.Token
	for run := range strings.SplitSeq(spec, ",") {
		from, to, _ := strings.Cut(run, "-")
		lo, err := strconv.Atoi(from)
		hi := lo
		if err == nil && to != "" {
			hi, err = strconv.Atoi(to)
		}
		if err != nil {
			t.Fatalf("cannot read tokens %q: %v", spec, err)
		}
		for i := lo; i <= hi; i++ {
			out = append(out, terse.Token(i))
		}
	}
	return out
}
