//go:build purego || !amd64

package codes

import "github.com/terse-llm/terse/internal/cpu"

func accelerate(*Kernels, cpu.Level) {}
