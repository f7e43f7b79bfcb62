package route_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/route"
)

func drawMember(t *rapid.T, i int) route.Candidate {
	return route.Candidate{
		ID:            string(rune('a' + i)),
		Role:          rapid.SampledFrom([]terse.Role{terse.RolePrefill, terse.RoleDecode, terse.RoleBoth}).Draw(t, "role"),
		MaxContext:    rapid.SampledFrom([]int{0, 512, 8192}).Draw(t, "context"),
		Running:       rapid.IntRange(0, 2).Draw(t, "running"),
		Waiting:       rapid.IntRange(0, 2).Draw(t, "waiting"),
		WaitingTokens: rapid.SampledFrom([]int{0, 100, 5000}).Draw(t, "tokens"),
		PrefillRate:   rapid.SampledFrom([]float64{0, 100, 1000}).Draw(t, "rate"),
		CachedPrefix:  rapid.SampledFrom([]int{0, 64, 1024}).Draw(t, "cached"),
		KVFixed:       1e5, KVPerToken: 100,
		Links: map[string]float64{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "from"): rapid.SampledFrom([]float64{1e3, 1e6, 1e9}).Draw(t, "link")},
	}
}

// Whatever the cluster looks like: a decision names only workers that are
// there, not excluded and in a fitting role, with room for the prompt, and
// does not depend on the order of the members.
func TestDecisionsAreSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var members []route.Candidate
		for i := range rapid.IntRange(0, 6).Draw(t, "members") {
			members = append(members, drawMember(t, i))
		}
		ask := route.Ask{
			PromptTokens: rapid.IntRange(1, 1000).Draw(t, "prompt"),
			Output:       rapid.IntRange(0, 3).Draw(t, "output"),
			MaxTokens:    rapid.IntRange(0, 2).Draw(t, "max"),
			Exclude:      rapid.SliceOf(rapid.SampledFrom([]string{"a", "b", "c"})).Draw(t, "exclude"),
		}
		before := slices.Clone(members)
		d, err := route.Decide(members, ask)
		require.Equal(t, before, members, "the members were changed")

		find := func(id string) route.Candidate {
			i := slices.IndexFunc(members, func(c route.Candidate) bool { return c.ID == id })
			require.GreaterOrEqual(t, i, 0)
			require.NotContains(t, ask.Exclude, id)
			require.True(t, members[i].MaxContext == 0 || members[i].MaxContext >= ask.PromptTokens)
			return members[i]
		}
		if err == nil {
			require.True(t, find(d.Decode).Role.Decodes())
			require.NotEmpty(t, d.Reason)
		}
		if d.Split {
			require.True(t, find(d.Prefill).Role.Prefills())
			require.NotEqual(t, d.Decode, d.Prefill)
			// Never where its own estimate says that staying is faster.
			require.LessOrEqual(t, d.Ahead, d.Stay)
			for _, other := range d.Others {
				require.True(t, find(other).Role.Prefills())
				require.NotContains(t, []string{d.Decode, d.Prefill}, other)
			}
		}
		if strings.HasPrefix(d.Reason, "stay: faster") {
			require.Less(t, d.Stay, d.Ahead)
		}
		shuffled := rapid.Permutation(members).Draw(t, "shuffled")
		again, errAgain := route.Decide(shuffled, ask)
		require.Equal(t, d, again)
		require.Equal(t, err, errAgain)
	})
}
