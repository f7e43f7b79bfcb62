package gateway

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
)

func tokensFrom(first, n int) []terse.Token {
	tokens := make([]terse.Token, n)
	for i := range tokens {
		tokens[i] = terse.Token(first + i)
	}
	return tokens
}

func TestPrefixes(t *testing.T) {
	p := newPrefixes()
	text := tokensFrom(1, 200)
	p.note("d", 1, p.chain(text))
	f := func(want int, worker string, epoch uint64, tokens []terse.Token) {
		t.Helper()
		require.Equal(t, want, p.held(worker, epoch, p.chain(tokens)))
	}
	f(192, "d", 1, text)
	f(192, "d", 1, tokensFrom(1, 1000))
	f(128, "d", 1, slices.Concat(text[:150], tokensFrom(1000, 100)))
	f(0, "d", 1, tokensFrom(2, 200))
	f(0, "d", 1, nil)
	f(0, "d", 2, text) // another life of the worker
	f(0, "e", 1, text)
	p.forget("d")
	f(0, "d", 1, text)
	// What is not asked for goes first.
	p.note("d", 1, p.chain(text))
	for i := range 3 * maxHeld / 100 {
		p.note("d", 1, p.chain(tokensFrom(10_000_000+i*10_000, 6400)))
		if i == maxHeld/100 {
			f(192, "d", 1, text)
		}
	}
	f(0, "d", 1, text)
	require.LessOrEqual(t, len(p.of["d"].now)+len(p.of["d"].older), 2*maxHeld)
}

// The next turn of a conversation goes to the worker that made the last one, and
// stays there where hardly anything is left to compute.
func TestDispatchFollowsAConversation(t *testing.T) {
	w := &workers{list: []cluster.Member{
		clusterMember("d1", terse.RoleDecode), clusterMember("d2", terse.RoleDecode), clusterMember("p1", terse.RolePrefill),
	}}
	c := newCluster(w, w, ClusterOptions{})
	ask := func(prompt []terse.Token) string {
		req := longRequest()
		req.Prompt = prompt
		_, _, err := gather(c, req)
		require.NoError(t, err)
		return w.tried[len(w.tried)-1]
	}
	w.list[0].Running = 1
	turn := tokensFrom(1, 1000)
	require.Equal(t, "p1>d2", ask(turn))
	w.list[0].Running, w.list[1].Running = 0, 2
	require.Equal(t, "d2", ask(slices.Concat(turn, tokensFrom(5000, 100))))
	require.Equal(t, "p1>d2", ask(slices.Concat(turn, tokensFrom(6000, 600))))
	require.Equal(t, "p1>d1", ask(tokensFrom(7000, 1000)))
	w.list[1].Epoch++ // it was restarted, and holds nothing
	require.Equal(t, "p1>d1", ask(slices.Concat(turn, tokensFrom(8000, 100))))
}
