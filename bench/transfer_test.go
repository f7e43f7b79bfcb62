package bench

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// Both sides in one process: every format moves what it should, and the report
// says all of it.
func TestTransfer(t *testing.T) {
	o := TransferOptions{Formats: []string{"f16", "hq2", "hq4"}, Progressive: true, Layers: 2, KVHeads: 1, Dim: 64, Tokens: 320, Conns: 2, Time: time.Millisecond, Key: []byte("0123456789abcdef")}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- ServeTransfers(ctx, "127.0.0.1:0", o, func(addr string) { ready <- addr }) }()
	var addr string
	select {
	case addr = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	r, err := Transfer(t.Context(), addr, o)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(r.Rows) != 4 || r.Rows[3].Format != "hq4, apart" || r.Rows[3].Bytes != r.Rows[2].Bytes || r.Rows[3].Second <= 0 || r.Rows[3].Begin.Rounds != r.Rows[3].Time.Rounds || r.Rows[0].Bytes != 320*2*64*2*2 || r.Rows[1].Bytes >= r.Rows[0].Bytes {
		t.Errorf("%+v", r.Rows)
	}
	for _, row := range r.Rows {
		if row.Gbps <= 0 || row.F16Gbps < 0.99*row.Gbps || row.Time.Rounds < fewest {
			t.Errorf("%+v", row)
		}
	}
	var table, json bytes.Buffer
	if err := r.Table(&table); err != nil || !strings.Contains(table.String(), "hq4, apart") || !strings.Contains(table.String(), "hq2") {
		t.Errorf("%v: %s", err, table.String())
	}
	if err := r.JSON(&json); err != nil || !strings.Contains(json.String(), `"f16_gbit_per_s"`) {
		t.Errorf("%v: %s", err, json.String())
	}
}

func TestIperfReport(t *testing.T) {
	row, err := parseIperf([]byte(`{"end":{"sum_received":{"bits_per_second":2e9},"cpu_utilization_percent":{"host_total":30,"remote_total":60}}}`), 4)
	if err != nil || row != (IperfRow{Conns: 4, Gbps: 2, SendCores: 0.6, RecvCores: 0.3}) {
		t.Errorf("%+v, %v", row, err)
	}
	for _, bad := range []string{`{"error":"unable to connect"}`, `{}`, ``} {
		if _, err := parseIperf([]byte(bad), 1); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
