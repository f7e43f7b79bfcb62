package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse/bench"
	levels "github.com/terse-llm/terse/internal/cpu"
)

// benchTransferFlags say what KV is moved, and from where.
type benchTransferFlags struct {
	o               bench.TransferOptions
	secure          secureFlags
	listen, connect string
	formats         string
	format          string
	quiet           bool
}

// newBenchTransfer is terse bench transfer.
func newBenchTransfer() *cobra.Command {
	var f benchTransferFlags
	c := &cobra.Command{
		Use:   "transfer",
		Short: "Time the KV transfer beside iperf3",
		Long: `Moves the KV of prompts from one process to another, in each format, and prints the
rate of the bytes moved, the rate at which float16 would have had to move, and the cores
that both sides spend, beside what iperf3 reaches over the same link where it is
installed. Without --connect, both processes run here and the link is loopback. Over a
network, start one with --listen on the sending machine and one with --connect, with
the same --kv and shape.`,
		Example: `  terse bench transfer
  terse bench transfer --listen 0.0.0.0:7401 --insecure     # on 10.0.0.1
  terse bench transfer --connect 10.0.0.1:7401 --kv f16,hq3`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	flags := c.Flags()
	flags.StringVar(&f.formats, "kv", "f16,hq4,hq3,hq2,hack", "formats to move, split by commas")
	flags.IntVar(&f.o.Layers, "layers", 32, "layers of the model whose KV is moved")
	flags.IntVar(&f.o.KVHeads, "kv-heads", 8, "its KV heads")
	flags.IntVar(&f.o.Dim, "head-dim", 128, "their size")
	flags.IntVar(&f.o.Tokens, "tokens", 1024, "length of the prompts")
	flags.IntVar(&f.o.Conns, "conns", 4, "connections of a transfer")
	flags.BoolVar(&f.o.Progressive, "progressive", false, "also with second planes apart from the rest, in formats that have some: when decoding could begin")
	flags.DurationVar(&f.o.Time, "time", 20*time.Second, "time for all rounds together")
	flags.BoolVar(&f.o.Iperf, "iperf", true, "compare with iperf3 where it is installed")
	flags.StringVar(&f.listen, "listen", "", "send from this address, on as many ports as formats, until interrupted")
	flags.StringVar(&f.connect, "connect", "", "receive from the machine that listens there")
	flags.StringVar(&f.format, "format", "table", "table or json")
	flags.BoolVar(&f.quiet, "quiet", false, "do not say on standard error what is being timed")
	f.secure.register(c)
	return c
}

func (f *benchTransferFlags) run(c *cobra.Command) (err error) {
	for name, v := range map[string]int{"layers": f.o.Layers, "kv-heads": f.o.KVHeads, "head-dim": f.o.Dim, "tokens": f.o.Tokens, "conns": f.o.Conns} {
		if v < 1 {
			return usageError{c.CommandPath(), fmt.Errorf("--%s is %d: it must be positive", name, v)}
		}
	}
	if f.listen != "" && f.connect != "" {
		return usageError{c.CommandPath(), fmt.Errorf("--listen and --connect are the two sides: give one of them")}
	}
	if f.format != "table" && f.format != "json" {
		return usageError{c.CommandPath(), fmt.Errorf("--format %q: choose table or json", f.format)}
	}
	f.o.Formats = strings.Split(f.formats, ",")
	if f.o.Key, f.o.TLS, err = f.secure.load(orElse(f.listen, "127.0.0.1:0")); err != nil {
		return err
	}
	if !f.quiet {
		f.o.Log = func(what string) { fmt.Fprintf(c.ErrOrStderr(), "%s\n", what) }
	}
	if f.listen != "" {
		return bench.ServeTransfers(c.Context(), f.listen, f.o, func(addr string) {
			fmt.Fprintf(c.OutOrStdout(), "sending from %s\n", addr)
		})
	}
	addr := f.connect
	if addr == "" {
		stop, at, err := f.sender(c.Context(), c.ErrOrStderr())
		if err != nil {
			return err
		}
		defer stop()
		addr = at
	}
	r, err := bench.Transfer(c.Context(), addr, f.o)
	if err != nil {
		return err
	}
	r.Machine = bench.NewMachine(threadsOr(0), levels.Best(), version(), "none")
	if f.format == "json" {
		return r.JSON(c.OutOrStdout())
	}
	return r.Table(c.OutOrStdout())
}

// sender starts the sending side as a process of its own, so that what each
// side spends can be told apart.
func (f *benchTransferFlags) sender(ctx context.Context, errs io.Writer) (stop func(), addr string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	args := []string{"bench", "transfer", "--listen", "127.0.0.1:0", "--kv", f.formats, "--quiet", fmt.Sprintf("--iperf=%v", f.o.Iperf),
		"--layers", fmt.Sprint(f.o.Layers), "--kv-heads", fmt.Sprint(f.o.KVHeads), "--head-dim", fmt.Sprint(f.o.Dim)}
	for _, a := range [][2]string{{"--cluster-key-file", f.secure.keyFile}, {"--tls-cert", f.secure.cert}, {"--tls-key", f.secure.certKey}, {"--tls-ca", f.secure.ca}} {
		if a[1] != "" {
			args = append(args, a[0], a[1])
		}
	}
	child := exec.CommandContext(ctx, self, args...)
	child.Cancel = func() error { return child.Process.Signal(os.Interrupt) }
	child.Stderr = errs
	out, err := child.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := child.Start(); err != nil {
		return nil, "", fmt.Errorf("cannot start the sending side: %w", err)
	}
	stop = func() {
		_ = child.Process.Signal(os.Interrupt) // it may have ended by itself
		_ = child.Wait()                       // its status is the interrupt's
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "sending from ")
	if !ok {
		stop()
		return nil, "", fmt.Errorf("cannot start the sending side: it says %q, %v", line, err)
	}
	return stop, addr, nil
}
