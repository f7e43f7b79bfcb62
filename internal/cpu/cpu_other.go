//go:build purego || !amd64

package cpu

func detected() []Level { return nil }
