package serving

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Answers are held against those of the target with all planes, request by request.
func TestPlanesOf(t *testing.T) {
	answer := func(target string, number int, text string, timing *Timing) Outcome {
		return Outcome{Target: target, Number: number, text: []byte(text), Timing: timing}
	}
	all := []Outcome{
		answer("f16", 0, "abcd", nil), answer("f16", 1, "efgh", nil), answer("f16", 2, "ijkl", nil),
		answer("hq4", 0, "abcd", nil), answer("hq4", 1, "efxx", nil), answer("hq4", 2, "ijkl", nil),
		answer("p", 0, "abcd", &Timing{KVBytes: 100}),
		answer("p", 1, "efx", &Timing{KVBytes: 100, KVSecond: 40, TopTokens: 2, Adoption: 500}),
		answer("p", 2, "xxxx", &Timing{KVBytes: 90, KVSecond: 30, TopTokens: 4}),
		{Target: "p", Number: 3, Error: "lost"}, // and has no answer to compare
	}
	p := planesOf("p", "hq4", all)
	require.Equal(t, Planes{
		Apart: 2.0 / 3, Second: 35, TopTokens: 3, Adopted: 0.5, Adoption: 0.5, Like: "hq4",
		Same: 1.0 / 3, Common: (1 + 0.75 + 0) / 3.0, LikeF16: (1 + 0.5 + 0) / 3.0, WholeF16: (1 + 0.5 + 1) / 3.0,
	}, *p)
	r := Report{Rows: []Row{{Target: "hq4"}, {Target: "p", Planes: p, KVBytes: 4000}}}
	require.Contains(t, r.Markdown(), "| `p` | 67 % | 3.9 KiB | 0.0 KiB | 3 | 50 % | 500 ms | `hq4` | 33 % | 58 % | 50 % | 83 % |\n")
	r.Rows = r.Rows[:1]
	require.Equal(t, 2, strings.Count(r.Markdown(), "|---|---|\n")) // and no third table
}
