package quant

import (
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
