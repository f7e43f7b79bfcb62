package weights_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse/internal/defaultmodel"
	"github.com/terse-llm/terse/weights"
)

func BenchmarkOpenDefaultModel(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		s, err := weights.OpenFS(defaultmodel.FS())
		require.NoError(b, err)
		s.Fingerprint()
		require.NoError(b, s.Close())
	}
}
