//go:build purego || (!amd64 && !arm64)

package encode

import "github.com/terse-llm/terse/internal/cpu"

func (k *Kernels) use(cpu.Level) {}
