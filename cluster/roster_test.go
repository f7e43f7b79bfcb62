package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func life(id string, epoch uint64) record {
	m := decoder(id)
	m.Epoch = epoch
	return record{Protocol: protocol, Member: m}
}

func goodbye(id string, epoch uint64) record {
	r := life(id, epoch)
	r.Gone = true
	return r
}

func ids(r *roster) []string {
	names := []string{}
	for _, m := range r.list() {
		names = append(names, m.ID)
	}
	return names
}

func TestRosterLeases(t *testing.T) {
	r := &roster{entries: map[string]*entry{}}
	require.Equal(t, "joined", r.apply(life("b", 1)).what)
	require.Equal(t, "joined", r.apply(life("a", 1)).what)
	require.Equal(t, []string{"a", "b"}, ids(r))
	for range leaseTicks - 1 {
		require.Empty(t, r.tick())
	}
	require.Equal(t, "", r.apply(life("a", 1)).what, "a refresh is no event")
	lost := r.tick()
	require.Len(t, lost, 1)
	require.Equal(t, "b", lost[0].member.ID)
	require.Equal(t, "lost", lost[0].what)
	for range leaseTicks - 2 {
		require.Empty(t, r.tick())
	}
	require.Equal(t, []string{"a"}, ids(r))
	require.Len(t, r.tick(), 1)
	require.Empty(t, ids(r))
}

func TestRosterLives(t *testing.T) {
	r := &roster{entries: map[string]*entry{}}
	r.apply(life("a", 5))
	require.Equal(t, "joined", r.apply(life("a", 6)).what, "a new life")
	require.Equal(t, "", r.apply(goodbye("a", 5)).what, "the goodbye of the earlier life")
	require.Equal(t, "", r.apply(life("a", 5)).what)
	require.Equal(t, uint64(6), r.list()[0].Epoch)
	require.Equal(t, "left", r.apply(goodbye("a", 6)).what)
	require.Equal(t, "", r.apply(goodbye("a", 6)).what)
	require.Empty(t, ids(r))
}

func TestRosterIsBounded(t *testing.T) {
	r := &roster{entries: map[string]*entry{}}
	for i := range maxMembers + 10 {
		rec := life("x", 1)
		rec.Member.ID = "w" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		r.apply(rec)
	}
	require.Len(t, r.entries, maxMembers)
}
