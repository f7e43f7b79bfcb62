package quant

import (
	"slices"
	"strings"
	"testing"
)

// The sizes that docs/formats.md and the wire budget promise, in bits per
// element at head_dim 64.
func TestBitsPerElement(t *testing.T) {
	f := func(name string, calibrated bool, want float64) {
		t.Helper()
		fm, err := ParseFormat(name, calibrated)
		if err != nil {
			t.Fatal(err)
		}
		g, err := NewGeometry(fm, 1, 1, 64)
		if err != nil {
			t.Fatal(err)
		}
		got := float64(8*g.CodedBytes()) / float64(2*fm.PageTokens*64)
		if got != want {
			t.Errorf("%s: %.4f bits per element, want %.4f", name, got, want)
		}
	}
	f("f16", false, 0)
	f("hq2", true, 2.25)
	f("hq3", true, 3.25)
	f("hq4", true, 4.25)
	f("hq2", false, 2.5)
	f("hq2,k2=lead:16", true, 2.625) // K: another scale, a quarter of a plane
	f("hq2,k2=shared:16", true, 2.5)
	f("hack", false, 2.625)
	f("hack,se=off", false, 2.5)
	f("hack,partition=128,se=off", false, 2.375) // K's partition is the head's 64 channels
	f("hack:v2", false, 2.625)
	f("hack,bits=4,se=off", false, 4.5)
}

// A plan lays each layer out for itself; pages are as long as the layers together.
func TestPlannedGeometry(t *testing.T) {
	cal := testCalibration(4, 2, 64)
	f := parse(t, "hq2b", true)
	if _, err := NewCalibratedGeometry(f, cal, 4, 2, 64); err == nil || !strings.Contains(err.Error(), "terse calibrate") {
		t.Errorf("without a plan: %v", err)
	}
	if _, err := NewGeometry(f, 4, 2, 64); err == nil || !strings.Contains(err.Error(), "terse calibrate") {
		t.Errorf("without a calibration: %v", err)
	}
	cal.KPlan = []uint16{0, 16, 48, 64}
	if _, err := NewCalibratedGeometry(f, cal, 3, 2, 64); err == nil || !strings.Contains(err.Error(), "4 layers") {
		t.Errorf("with another model's: %v", err)
	}
	g, err := NewCalibratedGeometry(f, cal, 4, 2, 64)
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for layer, name := range []string{"hq2", "hq2,k2=shared:16", "hq2,k2=shared:48", "hq3"} {
		alone, err := NewGeometry(parse(t, name, true), 4, 2, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.At(layer); got.HQ != alone.HQ || got.HeadBytes != alone.HeadBytes {
			t.Errorf("layer %d is not laid out as %s", layer, name)
		}
		size += alone.CodedBytes()
	}
	if g.CodedPage() != size || g.Even() {
		t.Errorf("pages of %d bytes, want %d", g.CodedPage(), size)
	}
}

// A plan for a budget gives channels to the layers that they do most good per byte, in
// whole steps, and no more than the budget has.
func TestPlanWithinBudget(t *testing.T) {
	cal := testCalibration(3, 2, 64)
	cal.KPlan = make([]uint16, 3)
	cal.KHarm = []float32{ // of 0, 16, 32, 48, 64 channels
		9, 8.5, 8.4, 8.3, 8.2, // little to gain
		9, 5, 3, 2.9, 2.8, // at once
		9, 8.9, 2, 1.9, 1.8, // two steps together
	}
	plan := func(name string) []uint16 {
		t.Helper()
		f := parse(t, name, true)
		g, err := NewCalibratedGeometry(f, cal, 3, 2, 64)
		if err != nil {
			t.Fatal(err)
		}
		bits := 0.0
		out := make([]uint16, 3)
		for layer := range out {
			out[layer] = uint16(g.At(layer).HQ[HalfK].Segments[0].Hi)
			if g.At(layer).HQ[HalfK].LowRows == 0 {
				out[layer] = 0
			}
			bits += 8 * float64(PlannedBytes(f, int(out[layer]), 64)) / (2 * 64 * 64) / 3
		}
		if f.Budget > 0 && bits > float64(f.Budget)/1000 {
			t.Errorf("%s: %v take %g bits", name, out, bits)
		}
		return out
	}
	f := func(name string, want ...uint16) {
		t.Helper()
		if got := plan(name); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	f("hq2b", 0, 0, 0)
	f("hq2b,budget=2.25", 0, 0, 0)
	f("hq2b,budget=2.333", 0, 0, 0) // a step of one layer is a twelfth of a bit
	f("hq2b,budget=2.334", 0, 16, 0)
	f("hq2b,budget=2.45", 0, 32, 0) // two steps, too few for two together behind the first
	f("hq2b,budget=2.5", 0, 16, 32)
	f("hq2b,budget=2.584", 0, 32, 32)
	f("hq2b,budget=2.584,important=10", 0, 32, 32)
	f("hq2b,budget=3.25", 64, 64, 64)
	cal.KPlan = []uint16{16, 16, 16}
	f("hq2b", 16, 16, 16)
	if _, err := NewCalibratedGeometry(parse(t, "hq2b,budget=2.2", true), cal, 3, 2, 64); err == nil || !strings.Contains(err.Error(), "take 2.25") {
		t.Errorf("a budget below what is there: %v", err)
	}
	cal.KHarm = nil
	if _, err := NewCalibratedGeometry(parse(t, "hq2b,budget=2.5", true), cal, 3, 2, 64); err == nil || !strings.Contains(err.Error(), "terse calibrate") {
		t.Errorf("without what plans are made of: %v", err)
	}
}
