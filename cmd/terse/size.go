package main

import (
	"fmt"
	"strconv"
	"strings"
)

// byteSize is a flag for amounts of memory: 512MiB, 2GiB, 1.5GB, 1000000, or
// auto (0).
type byteSize int64

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40}, {"b", 1}, {"", 1},
}

// Set implements pflag.Value.
func (b *byteSize) Set(s string) error {
	text := strings.ToLower(strings.TrimSpace(s))
	if text == "auto" {
		*b = 0
		return nil
	}
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || v <= 0 || v*u.bytes >= 1<<62 {
			break
		}
		*b = byteSize(v * u.bytes)
		return nil
	}
	return fmt.Errorf("%q is no size: write it like 512MiB, 2GiB or auto", s)
}

// String implements pflag.Value.
func (b *byteSize) String() string {
	if *b == 0 {
		return "auto"
	}
	return formatBytes(int64(*b))
}

// Type implements pflag.Value.
func (b *byteSize) Type() string { return "size" }

// formatBytes writes n for people: three digits and a binary unit.
func formatBytes(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", f, unit)
}
