//go:build purego || (!amd64 && !arm64)

package cpu

func detected() []Level { return nil }
