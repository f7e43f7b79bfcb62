//go:build !amd64 || purego

package peak

import "github.com/terse-llm/terse/internal/cpu"

func native(cpu.Level) *Kernels { return nil }
