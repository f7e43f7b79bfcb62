package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os/exec"
	"strconv"
	"time"
)

// serveIperf starts an iperf3 server beside addr where iperf3 is installed. It
// returns its port, "" for none.
func serveIperf(addr net.Addr) (stop func(), port string) {
	none := func() {}
	path, err := exec.LookPath("iperf3")
	if err != nil {
		return none, ""
	}
	host, base, err := net.SplitHostPort(addr.String())
	if err != nil {
		return none, ""
	}
	n, err := strconv.Atoi(base)
	if err != nil {
		return none, ""
	}
	port = strconv.Itoa(n - 1)
	args := []string{"-s", "-p", port}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		args = append(args, "-B", host)
	}
	c := exec.Command(path, args...)
	if err := c.Start(); err != nil {
		return none, ""
	}
	return func() {
		_ = c.Process.Kill() // it may have ended by itself
		_ = c.Wait()
	}, port
}

// runIperf has the other side send for about d over as many connections as a
// transfer uses.
func (o *TransferOptions) runIperf(ctx context.Context, d time.Duration) (IperfRow, error) {
	seconds := max(1, int(math.Round(d.Seconds())))
	c := exec.CommandContext(ctx, "iperf3", "-c", o.iperfServer, "-p", o.iperfPort, "-R", "-J",
		"-P", strconv.Itoa(o.Conns), "-t", strconv.Itoa(seconds))
	out, err := c.Output()
	if err != nil {
		return IperfRow{}, fmt.Errorf("cannot run iperf3 (--iperf=false leaves it out): %w: %.300s", err, out)
	}
	return parseIperf(out, o.Conns)
}

func parseIperf(out []byte, conns int) (IperfRow, error) {
	var r struct {
		End struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			CPU struct {
				Host   float64 `json:"host_total"`
				Remote float64 `json:"remote_total"`
			} `json:"cpu_utilization_percent"`
		} `json:"end"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return IperfRow{}, fmt.Errorf("cannot read iperf3's report: %w", err)
	}
	if r.Error != "" || r.End.Received.Rate <= 0 {
		return IperfRow{}, fmt.Errorf("iperf3 failed: %s", r.Error)
	}
	return IperfRow{Conns: conns, Gbps: r.End.Received.Rate / 1e9, SendCores: r.End.CPU.Remote / 100, RecvCores: r.End.CPU.Host / 100}, nil
}
