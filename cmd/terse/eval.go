package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/eval"
	"github.com/terse-llm/terse/kernels/ref"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/tokenizer"
)

// evalFlags size an evaluation.
type evalFlags struct {
	formats, texts, calibration, file, json string
	windows, window, from, cases, threads   int
	length                                  int
	tasks                                   string
}

// newEval is terse eval: what each KV format costs in quality.
func newEval() *cobra.Command {
	var m modelFlags
	var f evalFlags
	c := &cobra.Command{
		Use:   "eval",
		Short: "Measure what each KV format costs in quality",
		Long: `Runs text through the exact model and through each KV format side by side and
prints perplexity, KL divergence to the exact model and top-1 agreement; then exact
answers to retrieval, recall and quoting tasks as the built-in model was trained on.
Every query attends as in decoding. The defaults are a small run; --windows 6
--cases 40 is the one that docs/quality.md reports.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runEval(c, &m, &f) },
	}
	m.register(c)
	c.Flags().StringVar(&f.formats, "kv", "hq4,hq3,hq2,hack:v2,hack", "KV formats to compare with f16, split by commas (options of one format by '+': hq2+sym=off)")
	c.Flags().StringVar(&f.calibration, "calibration", "", "calibration file of the model, 'none' for none (default: as terse serve)")
	c.Flags().StringVar(&f.texts, "texts", strings.Join(eval.TextNames(), ","), "built-in texts, split by commas; none for no text")
	c.Flags().StringVar(&f.file, "file", "", "text file to use instead of the built-in texts")
	c.Flags().IntVar(&f.windows, "windows", 1, "windows of each text")
	c.Flags().IntVar(&f.window, "window", 4096, "tokens of a window")
	c.Flags().IntVar(&f.from, "from", 512, "first position scored")
	c.Flags().StringVar(&f.tasks, "tasks", "retrieval,recall", "tasks, split by commas: retrieval, recall, quote; none for no task")
	c.Flags().IntVar(&f.cases, "cases", 4, "cases of each task")
	c.Flags().IntVar(&f.length, "length", 4096, "tokens of a task's prompt")
	c.Flags().IntVar(&f.threads, "threads", 0, "cores to compute on (default: all)")
	c.Flags().StringVar(&f.json, "json", "", "also write the results to this file")
	return c
}

// evalReport is everything a run measured.
type evalReport struct {
	Model   string
	Windows int
	Window  int
	From    int
	Texts   map[string][]*eval.Divergence
	Tasks   []eval.TaskResult
}

func runEval(c *cobra.Command, m *modelFlags, f *evalFlags) error {
	files, err := m.open()
	if err != nil {
		return err
	}
	defer files.source.Close()
	tok, err := files.tokenizer()
	if err != nil {
		return err
	}
	kv := kvFlags{calibration: f.calibration}
	cal, err := kv.readCalibration(files)
	if err != nil {
		return err
	}
	bound, err := model.Bind(files.config, files.source)
	if err != nil {
		return err
	}
	subject := eval.Subject{Model: bound, Ops: ref.New(threadsOr(f.threads)), Calibration: cal}
	report := evalReport{Model: files.name, Windows: f.windows, Window: f.window, From: f.from, Texts: map[string][]*eval.Divergence{}}
	if err := f.divergence(c, subject, tok, &report); err != nil {
		return err
	}
	if err := f.runTasks(c, subject, tok, &report); err != nil {
		return err
	}
	if f.json == "" {
		return nil
	}
	b, err := json.MarshalIndent(report, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(f.json, append(b, '\n'), 0o644)
}

// list splits a flag; "none" is empty.
func list(s string) []string {
	if s == "" || s == "none" {
		return nil
	}
	return strings.Split(s, ",")
}

func (f *evalFlags) kvFormats() []string {
	formats := list(f.formats)
	for i := range formats {
		formats[i] = strings.ReplaceAll(formats[i], "+", ",")
	}
	return formats
}

// divergence compares the formats over the texts.
func (f *evalFlags) divergence(c *cobra.Command, s eval.Subject, tok *tokenizer.Tokenizer, report *evalReport) error {
	encode := func(text string) ([]terse.Token, error) { return tok.Encode(text, tokenizer.EncodeOptions{}) }
	end, ok := tok.ID("<|endoftext|>")
	if !ok {
		if end, ok = tok.EOS(); !ok {
			return fmt.Errorf("the model has no end-of-text token to put between documents")
		}
	}
	names := list(f.texts)
	if f.file != "" {
		names = []string{f.file}
	}
	for _, name := range names {
		docs, err := f.text(name)
		if err != nil {
			return err
		}
		windows, err := eval.Windows(docs, encode, end, min(f.window, s.Model.Config.MaxContext), f.windows)
		if err != nil {
			return err
		}
		rows, err := eval.Compare(c.Context(), s, windows, append([]string{"f16"}, f.kvFormats()...), f.from, bar(c.ErrOrStderr(), name))
		if err != nil {
			return err
		}
		report.Texts[name] = rows
		printDivergence(c.OutOrStdout(), name, rows)
	}
	return nil
}

func (f *evalFlags) text(name string) ([]string, error) {
	if f.file == "" {
		return eval.Text(name)
	}
	b, err := os.ReadFile(f.file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the text: %w", err)
	}
	return []string{string(b)}, nil
}

func printDivergence(w io.Writer, name string, rows []*eval.Divergence) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%s\ttokens\tperplexity\tmean KL\tKL p99\ttop-1\t\n", name)
	for _, d := range rows {
		fmt.Fprintf(t, "%s\t%d\t%.3f\t%.5f\t%.4f\t%.3f\t\n", d.Format, d.Tokens, d.Perplexity, d.KL, d.KLp99, d.Top1)
	}
	t.Flush()
	fmt.Fprintln(w)
}

// runTasks scores exact answers in every format.
func (f *evalFlags) runTasks(c *cobra.Command, s eval.Subject, tok *tokenizer.Tokenizer, report *evalReport) error {
	for _, task := range list(f.tasks) {
		for _, format := range append([]string{"f16"}, f.kvFormats()...) {
			r, err := eval.RunTask(c.Context(), s, tok, task, format, f.length, f.cases, bar(c.ErrOrStderr(), task+" "+format))
			if err != nil {
				return err
			}
			report.Tasks = append(report.Tasks, r)
			fmt.Fprintf(c.OutOrStdout(), "%s@%d  %-10s %d/%d\n", r.Task, r.Length, r.Format, r.Right, r.Cases)
		}
	}
	return nil
}
