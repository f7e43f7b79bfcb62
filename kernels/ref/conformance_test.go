package ref

import (
	"testing"

	"github.com/terse-llm/terse/kernels/kerneltest"
)

func TestConformance(t *testing.T) { kerneltest.Conformance(t, New(2)) }
