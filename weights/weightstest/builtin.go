package weightstest

import (
	"testing"

	"github.com/terse-llm/terse/internal/defaultmodel"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/weights"
)

// BuiltIn is the model in the binary, with its calibration.
func BuiltIn(t testing.TB) (*weights.Source, *quant.Calibration) {
	t.Helper()
	src, err := weights.OpenFS(defaultmodel.FS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	file, err := defaultmodel.FS().Open("kv.calibration")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cal, err := quant.ReadCalibration(file)
	if err != nil {
		t.Fatal(err)
	}
	return src, cal
}
