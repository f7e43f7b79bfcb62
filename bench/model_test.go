package bench

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/terse-llm/terse/kernels/ref"
	"github.com/terse-llm/terse/model/modeltest"
)

// Every format is timed at every length, and depth comes without computing it.
func TestModel(t *testing.T) {
	m, _ := modeltest.Tiny(t, 1, ref.New(2))
	o := ModelOptions{Model: m, Formats: []string{"f16", "hq2"}, Prompts: []int{40}, Depths: []int{0, 128, 1000}, Steps: 2, Rounds: 2, Chunk: 16}
	r, err := Model(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 2+6 {
		t.Fatalf("%d rows", len(r.Rows))
	}
	for _, row := range r.Rows {
		samples, tokens := 2, row.Tokens
		if row.Test == "decode" {
			samples, tokens = 4, tokens%64
		}
		if row.Rate <= 0 || row.Low > row.Rate || row.High < row.Rate || row.Samples != samples || row.Test == "decode" && tokens != 0 {
			t.Errorf("row %+v", row)
		}
	}
	var table bytes.Buffer
	if err := r.Table(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"prefill", "decode", "960", "hq2"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
	o.Formats = []string{"hq9"}
	if _, err := Model(context.Background(), o); err == nil || !strings.Contains(err.Error(), "hq9") {
		t.Errorf("format hq9: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	o.Formats = []string{"f16"}
	if _, err := Model(ctx, o); err == nil {
		t.Error("a stopped run went on")
	}
}
