package quant

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestCalibrationFile(t *testing.T) {
	c := testCalibration(3, 2, 8)
	calibrationFile(t, c, 384)
	calibrationFile(t, withBasis(c), 1920)
	c = testCalibration(3, 2, 32)
	c.KPlan, c.KGain = []uint16{0, 16, 32}, []float32{1, 2, 3, 4, 5, 6}
	calibrationFile(t, c, 2*4*3*2*32+4*6+2*3)
	c.KHarm, c.HeadQ = []float32{3, 2, 1, 3, 2, 1, 3, 2, 1}, make([]float32, 3*4)
	calibrationFile(t, c, 2*4*3*2*32+4*6+2*3+4*9+4*12)
	c.HeadQ[4] = 1
	if err := WriteCalibration(io.Discard, c); err == nil || !strings.Contains(err.Error(), "layer 1 wants a residual of rank 1") {
		t.Errorf("a rank that no format has: %v", err)
	}
}

// calibrationFile writes c, whose sections take size bytes, reads it again, and
// tells what must not be read.
func calibrationFile(t *testing.T, c *Calibration, size int) {
	t.Helper()
	var file bytes.Buffer
	if err := WriteCalibration(&file, c); err != nil {
		t.Fatal(err)
	}
	data := file.Bytes()
	got, err := ReadCalibration(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if got.Hash != c.Hash || got.Hash == [32]byte{} || !slices.Equal(got.KMean, c.KMean) || !slices.Equal(got.VMean, c.VMean) || !slices.Equal(got.KBasis, c.KBasis) || !slices.Equal(got.KPlan, c.KPlan) || !slices.Equal(got.KGain, c.KGain) || !slices.Equal(got.KHarm, c.KHarm) || !slices.Equal(got.HeadQ, c.HeadQ) {
		t.Error("a calibration does not survive its file")
	}
	if _, body, _ := bytes.Cut(data, []byte("\n")); len(body) != size {
		t.Errorf("sections of %d bytes, want %d", len(body), size)
	}
	f := func(what string, data []byte, want string) {
		t.Helper()
		if _, err := ReadCalibration(bytes.NewReader(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	f("empty", nil, "line of JSON")
	f("cut", data[:len(data)-1], "ends after the file")
	f("longer", append(slices.Clone(data), 0), "1 bytes follow")
	f("other kind", []byte(`{"format":"x","version":1}`+"\n"), "want \"terse-calibration\" version 1 to 3")
	f("other version", []byte(`{"format":"terse-calibration","version":4}`+"\n"), "version 4")
	f("unknown field", []byte(`{"format":"terse-calibration","version":1,"rank":3}`+"\n"), "unknown field")
	f("huge", []byte(`{"format":"terse-calibration","version":1,"layers":4096,"kv_heads":4096,"head_dim":4096}`+"\n"), "more than")
	f("huge bases", []byte(`{"format":"terse-calibration","version":2,"layers":128,"kv_heads":64,"head_dim":128}`+"\n"), "ends after the file")
	f("negative", []byte(`{"format":"terse-calibration","version":1,"layers":-1,"kv_heads":1,"head_dim":1}`+"\n"), "from 1 to")
	bad := slices.Clone(data)
	copy(bad[len(bad)-4:], []byte{0, 0, 0xc0, 0x7f})
	want := "outside -65504 to 65504"
	if c.KPlan != nil && c.HeadQ == nil { // it comes last
		want = "leading channels"
	}
	f("not a number", bad, want)
}

// Earlier versions, whose sections have no names, are still read.
func TestCalibrationVersions(t *testing.T) {
	c := withBasis(testCalibration(2, 3, 8))
	for version, parts := range map[int][][]float32{1: {c.KMean, c.VMean}, 2: {c.KMean, c.VMean, c.KBasis}} {
		data := fmt.Appendf(nil, "{\"format\":\"terse-calibration\",\"version\":%d,\"layers\":2,\"kv_heads\":3,\"head_dim\":8}\n", version)
		for _, x := range parts {
			data = append(data, floatBytes(x)...)
		}
		got, err := ReadCalibration(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.KMean, c.KMean) || !slices.Equal(got.VMean, c.VMean) || (version == 2) != slices.Equal(got.KBasis, c.KBasis) {
			t.Errorf("version %d is read wrongly", version)
		}
		for _, data := range [][]byte{data[:len(data)-4], append(slices.Clone(data), 0)} {
			if _, err := ReadCalibration(bytes.NewReader(data)); err == nil {
				t.Errorf("version %d of a wrong length is read", version)
			}
		}
	}
}

// Sections come once and in order, have their size, and are known.
func TestCalibrationSections(t *testing.T) {
	c := testCalibration(1, 1, 2)
	means := append(floatBytes(c.KMean), floatBytes(c.VMean)...)
	f := func(sections, want string) {
		t.Helper()
		head := `{"format":"terse-calibration","version":3,"layers":1,"kv_heads":1,"head_dim":2,"sections":[` + sections + "]}\n"
		_, err := ReadCalibration(bytes.NewReader(append([]byte(head), means...)))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", sections, err, want)
		}
	}
	const k, v = `{"name":"k_mean","bytes":8}`, `{"name":"v_mean","bytes":8}`
	f(k+","+v, "")
	f(v+","+k, `"k_mean" is unknown, there twice or out of order`)
	f(k+","+k, "there twice")
	f(k+`,{"name":"magic","bytes":8}`, `"magic" is unknown`)
	f(k+`,{"name":"v_mean","bytes":-8}`, "ends after the file")
	f(k+`,{"name":"v_mean","bytes":4}`, "wants 8 bytes, found 4")
	f(k, "8 bytes follow")
	f(`{"name":"k_mean","bytes":8},{"name":"k_basis","bytes":8}`, "section k_basis")
	f("", "16 bytes follow")
	if _, err := ReadCalibration(strings.NewReader(`{"format":"terse-calibration","version":3,"layers":1,"kv_heads":1,"head_dim":2}` + "\n")); err == nil || !strings.Contains(err.Error(), "k_mean") {
		t.Errorf("without sections: %v", err)
	}
	if _, err := ReadCalibration(strings.NewReader(`{"format":"terse-calibration","version":2,"layers":1,"kv_heads":1,"head_dim":2,"sections":[]}` + "\n")); err == nil {
		t.Error("version 2 with sections is read")
	}
}

func FuzzReadCalibration(f *testing.F) {
	var file bytes.Buffer
	if err := WriteCalibration(&file, testCalibration(1, 1, 2)); err != nil {
		f.Fatal(err)
	}
	f.Add(slices.Clone(file.Bytes()))
	file.Reset()
	if err := WriteCalibration(&file, withBasis(testCalibration(1, 1, 2))); err != nil {
		f.Fatal(err)
	}
	f.Add(slices.Clone(file.Bytes()))
	file.Reset()
	learned := testCalibration(1, 1, 2)
	learned.NUQ = NewNUQ(1, 1, 2, 1)
	if err := WriteCalibration(&file, learned); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"format":"terse-calibration","version":1,"layers":1,"kv_heads":1,"head_dim":1}` + "\n12345678"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ReadCalibration(bytes.NewReader(data))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := WriteCalibration(&again, c); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
	})
}
