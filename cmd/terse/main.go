package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is main with an exit code: 0 well, 1 failed, 2 called wrongly, 130 stopped
// by the user.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "terse: %v\nSee '%s --help'.\n", err, usage.command)
		return 2
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return 130
	}
	fmt.Fprintf(os.Stderr, "terse: %v\n", err)
	return 1
}

// usageError is a command line that cannot be meant.
type usageError struct {
	command string
	err     error
}

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "terse",
		Short: "Serve large language models split into prefill and decode, on a coded KV cache",
		Long: `Terse serves large language models with prefill and decode on different machines
over ordinary Ethernet. The KV cache crosses as 2-4-bit codes and attention is
computed on the codes.

  terse serve                 everything in one process, on the built-in model
  terse run "Tell me a story" one answer in the terminal, with its timing`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError{c.CommandPath(), err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newServe(), newGateway(), newWorker(), newRun(), newCalibrate(), newEval(), newBench())
	return root
}

// noArgs refuses stray arguments by name.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{c.CommandPath(), fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v += " " + s.Value[:12]
		}
	}
	return v
}
