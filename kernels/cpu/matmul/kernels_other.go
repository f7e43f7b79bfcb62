//go:build purego || (!amd64 && !arm64)

package matmul

import "github.com/terse-llm/terse/internal/cpu"

func native(cpu.Level) *Kernels { return nil }
