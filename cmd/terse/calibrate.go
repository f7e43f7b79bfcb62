package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/calibrate"
	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tokenizer"
)

// newCalibrate is terse calibrate: the means of K and V of a model, and the
// balanced basis of K.
func newCalibrate() *cobra.Command {
	var m modelFlags
	var text, out string
	var tokens, window, threads int
	var budget float64
	c := &cobra.Command{
		Use:   "calibrate --model DIR|FILE",
		Short: "Learn the means and the basis of K and V of a model from sample text",
		Long: `Runs a model over sample text and writes the mean of K and of V per layer, KV head
and channel, a basis of K in which the channels that matter most to the scores come
first, and how many of these each layer has in 4 bits within --budget bits per element
(--kv hq2b), by what coding K does to attention; --kv hq2b,budget=BITS plans for others,
by the same file. What every part buys is told in the
end: the KL divergence of attention weights. The file belongs beside the model (` + calibrationFile + `), on every worker: they
compare its hash. With it codes are symmetric: smaller and faster; without it they
are asymmetric, and there are no hq2+ and hq2b.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := m.open()
			if err != nil {
				return err
			}
			defer f.source.Close()
			if out == "" {
				if out, err = m.calibrationPath(); err != nil {
					return usageError{c.CommandPath(), err}
				}
			}
			cal, parts, err := fit(c.Context(), f, sample{text, tokens, window}, budget, threads, c.ErrOrStderr())
			if err != nil {
				return err
			}
			if err := writeCalibration(out, cal); err != nil {
				return err
			}
			printParts(c.OutOrStdout(), cal, parts)
			fmt.Fprintf(c.OutOrStdout(), "wrote %s (%x)\n", out, cal.Hash[:6])
			return nil
		},
	}
	m.register(c)
	c.Flags().StringVar(&text, "text", "", "file of sample text, documents split by lines <|endoftext|> (default: a built-in mixture)")
	c.Flags().StringVar(&out, "out", "", "file to write (default: "+calibrationFile+" beside the model)")
	c.Flags().IntVar(&tokens, "tokens", sampleTokens, "most tokens to run")
	c.Flags().IntVar(&window, "window", sampleWindow, "tokens of one text")
	c.Flags().Float64Var(&budget, "budget", usualBudget, "bits per element of K and V that hq2b may take, scales included")
	c.Flags().IntVar(&threads, "threads", 0, "cores to compute on (default: all)")
	return c
}

// calibrationPath is where a calibration of this model is looked for.
func (f *modelFlags) calibrationPath() (string, error) {
	if f.path == "" {
		return "", fmt.Errorf("the built-in model has its calibration built in: give --out FILE to write another")
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		return filepath.Join(f.path, calibrationFile), nil
	}
	return f.path + "." + calibrationFile, nil
}

// What a model is calibrated on where nothing else is said, and the bits that hq2b may
// take.
const (
	sampleTokens = 32768
	sampleWindow = 4096
	usualBudget  = 2.5
)

// sample is what text to calibrate on.
type sample struct {
	file           string // empty: the built-in one
	tokens, window int
}

func fit(ctx context.Context, f *files, s sample, budget float64, threads int, progress io.Writer) (*quant.Calibration, []calibrate.Part, error) {
	tok, err := f.tokenizer()
	if err != nil {
		return nil, nil, err
	}
	windows, err := sampleWindows(tok, s.file, s.tokens, min(s.window, f.config.MaxContext))
	if err != nil {
		return nil, nil, err
	}
	ops := cpu.Best(threadsOr(threads))
	defer ops.Close()
	bound, err := model.Bind(f.config, f.source, ops)
	if err != nil {
		return nil, nil, err
	}
	return learn(ctx, bound, windows, budget, progress)
}

// learn is all that a calibration has.
func learn(ctx context.Context, m *model.Model, windows [][]terse.Token, budget float64, progress io.Writer) (*quant.Calibration, []calibrate.Part, error) {
	cal, _, err := calibrate.Fit(ctx, m, windows, timedBar(progress, "calibrating"))
	if err != nil {
		return nil, nil, err
	}
	parts, err := calibrate.Budget(ctx, m, cal, windows, budget, timedBar(progress, "measuring"))
	return cal, parts, err
}

// printParts tells what the parts of a calibration buy.
func printParts(w io.Writer, cal *quant.Calibration, parts []calibrate.Part) {
	fmt.Fprintf(w, "| K coded with                             | bits per element | KL of attention | --kv |\n|---|---|---|---|\n")
	for _, p := range parts {
		name := p.Format
		if name != "" {
			name = "`" + name + "`"
		}
		fmt.Fprintf(w, "| %-40s | %.3f | %.5f | %s |\n", p.Name, p.Bits, p.Divergence, name)
	}
	fmt.Fprintf(w, "channels of K in 4 bits, by layer: %v\nrank of HeadQ: 0 in all layers, no format has it\n", cal.KPlan)
}

// sampleWindows encodes the sample and cuts it into windows; a last, shorter one
// counts too.
func sampleWindows(tok *tokenizer.Tokenizer, text string, tokens, window int) ([][]terse.Token, error) {
	docs, err := calibrate.DefaultText()
	if text != "" {
		var b []byte
		b, err = os.ReadFile(text)
		docs = calibrate.Documents(string(b))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the sample text: %w", err)
	}
	var windows [][]terse.Token
	for _, doc := range docs {
		ids, err := tok.Encode(doc, tokenizer.EncodeOptions{AddSpecial: true})
		if err != nil {
			return nil, fmt.Errorf("cannot encode the sample text: %w", err)
		}
		for len(ids) > 0 && tokens > 0 {
			n := min(len(ids), window, tokens)
			windows, ids, tokens = append(windows, ids[:n]), ids[n:], tokens-n
		}
	}
	if len(windows) == 0 {
		return nil, fmt.Errorf("the sample text is empty")
	}
	return windows, nil
}

// writeCalibration writes beside the target first: a model's workers never see
// half a file.
func writeCalibration(path string, cal *quant.Calibration) error {
	t, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("cannot write the calibration: %w", err)
	}
	defer os.Remove(t.Name())
	if err := quant.WriteCalibration(t, cal); err != nil {
		t.Close()
		return err
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("cannot write the calibration: %w", err)
	}
	if err := os.Chmod(t.Name(), 0o644); err != nil {
		return fmt.Errorf("cannot write the calibration: %w", err)
	}
	return os.Rename(t.Name(), path)
}

// timedBar is bar with an estimate of the time that is left, once there is one.
func timedBar(w io.Writer, what string) func(done float64) {
	start := time.Now()
	return func(done float64) {
		passed := time.Since(start)
		if done >= 1 {
			fmt.Fprintf(w, "\r%s 100 %%, %v          \n", what, passed.Round(time.Second))
			return
		}
		left := ""
		if done > 0 && passed > time.Second {
			left = fmt.Sprintf(", %v left  ", time.Duration(float64(passed)*(1/done-1)).Round(time.Second))
		}
		fmt.Fprintf(w, "\r%s %3.0f %%%s", what, 100*done, left)
	}
}

// bar reports the share done of long work on one line.
func bar(w io.Writer, what string) func(done float64) {
	return func(done float64) {
		fmt.Fprintf(w, "\r%s %3.0f %%", what, 100*done)
		if done >= 1 {
			fmt.Fprintln(w)
		}
	}
}

func threadsOr(n int) int {
	if n == 0 {
		return runtime.NumCPU()
	}
	return n
}
