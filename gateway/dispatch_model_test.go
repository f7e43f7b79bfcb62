package gateway

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
)

// Workers of another model, or of the same with another vocabulary, get nothing
// and are said once; what to do is part of what is said.
func TestOnlyWorkersOfTheModel(t *testing.T) {
	mine := Model{Name: "tiny", Hash: "h", Text: "t"}
	other := func(id string, change func(*cluster.Member)) cluster.Member {
		m := clusterMember(id, terse.RoleDecode)
		m.Text = "t"
		change(&m)
		return m
	}
	fits := other("d9", func(m *cluster.Member) {})
	unknown := other("d8", func(m *cluster.Member) { m.Text = "" }) // a model directory without a tokenizer
	model := other("d1", func(m *cluster.Member) { m.ModelHash, m.Model = "h2", "huge" })
	text := other("d2", func(m *cluster.Member) { m.Text = "t2" })

	var logs bytes.Buffer
	w := &workers{list: []cluster.Member{model, text, unknown, fits}}
	c := newCluster(w, w, ClusterOptions{Model: mine, Logger: slog.New(slog.NewTextHandler(&logs, nil))})
	for range 3 {
		_, _, err := gather(c, longRequest())
		require.NoError(t, err)
	}
	require.NoError(t, c.Ready())
	require.Subset(t, []string{"d8", "d9"}, w.tried)
	require.Equal(t, 1, strings.Count(logs.String(), "id=d1"))
	require.Equal(t, 1, strings.Count(logs.String(), "id=d2"))
	w.list[0].Epoch++ // another life of it
	_, _, err := gather(c, longRequest())
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(logs.String(), "id=d1"))
	require.ErrorContains(t, c.Settle(t.Context()), `worker "d1" serves model huge`)

	f := func(m cluster.Member, words ...string) {
		t.Helper()
		w := &workers{list: []cluster.Member{m}}
		c := newCluster(w, w, ClusterOptions{Model: mine})
		_, _, err := gather(c, longRequest())
		for _, err := range []error{err, c.Ready(), c.Settle(t.Context())} {
			require.Equal(t, terse.CodeMismatch, terse.CodeOf(err))
			for _, word := range append(words, "tiny", "--model", "--cluster") {
				require.ErrorContains(t, err, word)
			}
		}
		require.Empty(t, w.tried)
	}
	f(model, "d1", "huge", "h2")
	f(text, "d2", "tokenizer", "t2")
	// Nobody at all is no mismatch.
	w = &workers{}
	c = newCluster(w, w, ClusterOptions{Model: mine})
	require.NoError(t, c.Settle(t.Context()))
	require.Equal(t, terse.CodeNoWorker, terse.CodeOf(c.Ready()))
}
