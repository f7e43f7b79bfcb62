package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/eval"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tokenizer"
)

// evalFlags size an evaluation.
type evalFlags struct {
	formats, texts, calibration, file, json string
	stress                                  string
	windows, window, from, cases, threads   int
	length                                  int
	tasks                                   string
	agree                                   int
	depths                                  int
	html, speed                             string
	style                                   string
	part                                    string
	taskFiles, merge                        []string
}

// newEval is terse eval: what each KV format costs in quality.
func newEval() *cobra.Command {
	var m modelFlags
	var f evalFlags
	c := &cobra.Command{
		Use:   "eval",
		Short: "Measure what each KV format costs in quality",
		Long: `Runs text through the exact model and through each KV format side by side, then asks
retrieval, recall and quoting questions of the kind that the built-in model was trained
on, and prints one table: size, perplexity, the loss of log perplexity, KL divergence to the
exact model, top-1 agreement and exact answers, with 95 % intervals (of texts by blocks of 128
positions, of tasks by Wilson's, and which cases went the other way in f16). Every query attends as in decoding. The defaults are a
small run; docs/quality.md reports --windows 6 and --cases 192. --json keeps
every figure, and is written anew after each text and task; --merge puts the files of
several runs into one table.

Retrieval asks four questions of each text, recall eight of each list; late asks for lines
of a list after a long text that was decoded. --style decode appends texts token by token,
which gives the same figures.

--agree N also continues every window's first --from tokens greedily by N tokens, in f16
and in each format. --task-file takes cases of your own, one JSON object a line:
{"prompt": …, "answer": … or "answers": […], "metric": "accuracy" | "rouge1" | "edit"},
and with "complete": true the prompt is gone on with as it is instead of asked as a turn.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runEval(c, &m, &f) },
	}
	c.AddCommand(newEvalConvert())
	m.register(c)
	flags := c.Flags()
	flags.StringVar(&f.formats, "kv", "hq4,hq3,hq2,hack:v2,hack", "KV formats to compare with f16, split by commas (options of one format by '+': hq2+sym=off, hq2++recent=256; hq4@top: by its top planes behind the prompt)")
	flags.StringVar(&f.calibration, "calibration", "", "calibration file of the model, 'none' for none (default: as terse serve)")
	flags.StringVar(&f.texts, "texts", strings.Join(eval.TextNames(), ","), "built-in texts, split by commas; none for no text")
	flags.StringVar(&f.file, "file", "", "text file to use instead of the built-in texts")
	flags.IntVar(&f.windows, "windows", 1, "windows of each text")
	flags.IntVar(&f.window, "window", 4096, "tokens of a window")
	flags.IntVar(&f.from, "from", 512, "first position scored")
	flags.StringVar(&f.style, "style", string(eval.Prefill), "how texts get into the cache: prefill, in chunks, or decode, token by token after the first --from")
	flags.StringVar(&f.tasks, "tasks", "retrieval,recall,quote@512", "tasks, split by commas, '@' before a length of their own: "+strings.Join(eval.TaskNames(), ", ")+"; none for no task")
	flags.StringVar(&f.stress, "stress", "", "plant outliers in the model's keys, which leave what it computes alone, and calibrate it anew: "+strings.Join(eval.Stresses(), ", "))
	flags.IntVar(&f.agree, "agree", 0, "tokens to continue each window by, to see when formats part from f16 (default: none)")
	flags.StringSliceVar(&f.taskFiles, "task-file", nil, "file of cases with right answers, JSON lines")
	flags.IntVar(&f.cases, "cases", 4, "cases of each task")
	flags.StringVar(&f.part, "part", "", "run a part of the cases only, such as 1/16 for every sixteenth: --merge joins the parts' --json files")
	flags.IntVar(&f.depths, "depths", 0, "also print the tasks by length and by this many equal parts of the text that the answer may stand in (default: none)")
	flags.IntVar(&f.length, "length", 4096, "tokens of a task's prompt")
	flags.IntVar(&f.threads, "threads", 0, "cores to compute on (default: all)")
	flags.StringVar(&f.json, "json", "", "also write the results to this file")
	flags.StringVar(&f.html, "html", "", "also write the results to this file as a page with plots")
	flags.StringVar(&f.speed, "speed", "", "a report of terse bench serve --json, or of terse bench model or kernels --format json: the page shows quality against its times too")
	flags.StringSliceVar(&f.merge, "merge", nil, "measure nothing: print the table of these --json files")
	return c
}

// evaluation is a run in progress.
type evaluation struct {
	*evalFlags
	c       *cobra.Command
	subject eval.Subject
	tok     *tokenizer.Tokenizer
	report  *eval.Report
}

func runEval(c *cobra.Command, m *modelFlags, f *evalFlags) error {
	if err := f.check(); err != nil {
		return usageError{c.CommandPath(), err}
	}
	if len(f.merge) > 0 {
		return f.mergeReports(c)
	}
	files, err := m.open()
	if err != nil {
		return err
	}
	defer files.source.Close()
	f.window = min(f.window, files.config.MaxContext)
	ops := cpu.Best(threadsOr(f.threads))
	defer ops.Close()
	e := &evaluation{evalFlags: f, c: c, report: &eval.Report{Model: files.name, Version: version(), Windows: f.windows, Window: f.window, From: f.from}}
	if f.style == string(eval.Decode) {
		e.report.Style = eval.Decode
	}
	if err := e.open(files, ops); err != nil {
		return err
	}
	for _, format := range f.kvFormats() {
		cost, err := eval.CostOf(e.subject, format)
		if err != nil {
			return err
		}
		e.report.Costs = append(e.report.Costs, cost)
	}
	if err := e.runTexts(); err != nil {
		return err
	}
	if err := e.runTasks(); err != nil {
		return err
	}
	for _, path := range f.taskFiles {
		if err := e.runFile(path); err != nil {
			return err
		}
	}
	return f.finish(c, e.report)
}

// maxDepths keeps --depths a table.
const maxDepths = 20

// check refuses sizes that would measure nothing.
func (f *evalFlags) check() error {
	if f.stress != "" && f.calibration != "" && f.calibration != "none" {
		return fmt.Errorf("--stress makes a calibration of its own: leave --calibration out, or say none")
	}
	if f.style != string(eval.Prefill) && f.style != string(eval.Decode) {
		return fmt.Errorf("--style is %s or %s", eval.Prefill, eval.Decode)
	}
	if f.agree < 0 {
		return fmt.Errorf("--agree is at least 0")
	}
	if f.windows < 1 || f.cases < 1 || f.length < 1 {
		return fmt.Errorf("--windows, --cases and --length are at least 1")
	}
	if f.speed != "" && f.html == "" {
		return fmt.Errorf("--speed is for the page: say --html FILE too")
	}
	if f.depths < 0 || f.depths > maxDepths {
		return fmt.Errorf("--depths is 0 to %d", maxDepths)
	}
	if part, err := eval.ParsePart(f.part); err != nil {
		return err
	} else if part.Of > 0 && len(list(f.texts)) > 0 && len(f.merge) == 0 {
		return fmt.Errorf("--part shares out the cases of tasks: take --texts none with it")
	}
	if f.from < 0 || f.from > f.window-2 {
		return fmt.Errorf("--from %d leaves no position to score in a --window of %d tokens", f.from, f.window)
	}
	return nil
}

// open reads what the evaluation needs of the model.
func (e *evaluation) open(files *files, ops kernels.Ops) error {
	tok, err := files.tokenizer()
	if err != nil {
		return err
	}
	bound, cal, err := e.bind(files, tok, ops)
	if err != nil {
		return err
	}
	if cal != nil && e.stress != "" {
		e.report.Calibration = "of its own"
	} else if cal != nil {
		e.report.Calibration = fmt.Sprintf("%x", cal.Hash[:6])
	}
	e.tok = tok
	e.subject = eval.Subject{Model: bound, Calibration: cal}
	return nil
}

// bind prepares the model and finds its calibration. A model under stress is
// another one, and gets its own.
func (e *evaluation) bind(files *files, tok *tokenizer.Tokenizer, ops kernels.Ops) (*model.Model, *quant.Calibration, error) {
	w, err := model.Find(files.config, files.source)
	if err != nil {
		return nil, nil, err
	}
	if e.stress == "" {
		kv := kvFlags{calibration: e.calibration}
		cal, err := kv.readCalibration(files)
		if err != nil {
			return nil, nil, err
		}
		return w.Bind(ops), cal, nil
	}
	if err := eval.Stress(w, e.stress); err != nil {
		return nil, nil, err
	}
	e.report.Model += " with " + e.stress
	m := w.Bind(ops)
	if e.calibration == "none" {
		return m, nil, nil
	}
	windows, err := sampleWindows(tok, "", sampleTokens, min(sampleWindow, files.config.MaxContext))
	if err != nil {
		return nil, nil, err
	}
	cal, _, err := learn(e.c.Context(), m, windows, usualBudget, e.c.ErrOrStderr())
	return m, cal, err
}

// list splits a flag; "none" is empty.
func list(s string) []string {
	if s == "" || s == "none" {
		return nil
	}
	return strings.Split(s, ",")
}

// formatList splits a flag of KV formats, whose options follow a '+' each: hq2+
// alone has one of its own.
func formatList(s string) []string {
	formats := list(s)
	for i, name := range formats {
		b := []byte(name)
		for at := range b {
			if b[at] == '+' && at+1 < len(b) && b[at+1] >= 'a' && b[at+1] <= 'z' {
				b[at] = ','
			}
		}
		formats[i] = string(b)
	}
	return formats
}

// kvFormats are the formats asked for, f16 first.
func (f *evalFlags) kvFormats() []string {
	formats := slices.DeleteFunc(formatList(f.formats), func(name string) bool { return name == "f16" })
	return append([]string{"f16"}, formats...)
}

// runTexts compares the formats over the texts.
func (e *evaluation) runTexts() error {
	encode := func(text string) ([]terse.Token, error) { return e.tok.Encode(text, tokenizer.EncodeOptions{}) }
	end, ok := e.tok.ID("<|endoftext|>")
	if !ok {
		if end, ok = e.tok.EOS(); !ok {
			return fmt.Errorf("the model has no end-of-text token to put between documents")
		}
	}
	names := list(e.texts)
	if e.file != "" {
		names = []string{e.file}
	}
	var all [][]terse.Token
	for _, name := range names {
		docs, err := e.text(name)
		if err != nil {
			return err
		}
		windows, err := eval.Windows(docs, encode, end, e.window, e.windows)
		if err != nil {
			return err
		}
		rows, err := eval.Compare(e.c.Context(), e.subject, windows, e.kvFormats(), e.from, eval.Style(e.style), bar(e.c.ErrOrStderr(), name))
		if err != nil {
			return err
		}
		all = append(all, windows...)
		e.report.Texts = append(e.report.Texts, eval.TextResult{Text: name, Rows: rows})
		if err := e.save(e.report); err != nil {
			return err
		}
	}
	if e.agree == 0 || len(all) == 0 {
		return nil
	}
	var err error
	e.report.Agreements, err = eval.Agree(e.c.Context(), e.subject, all, e.kvFormats(), e.from, e.agree, bar(e.c.ErrOrStderr(), "continuing"))
	return err
}

// runFile scores a task file in every format.
func (e *evaluation) runFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot read the task file: %w", err)
	}
	defer file.Close()
	cases, err := eval.ReadTaskFile(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".gz"), ".jsonl")
	part, err := eval.ParsePart(e.part)
	if err != nil {
		return err
	}
	for _, format := range e.kvFormats() {
		r, err := eval.RunFile(e.c.Context(), e.subject, e.tok, name, format, cases, part, bar(e.c.ErrOrStderr(), name+" "+format))
		if err != nil {
			return err
		}
		e.report.Tasks = append(e.report.Tasks, r)
		if err := e.save(e.report); err != nil {
			return err
		}
	}
	return nil
}

func (e *evaluation) text(name string) ([]string, error) {
	if e.file == "" {
		return eval.Text(name)
	}
	b, err := os.ReadFile(e.file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the text: %w", err)
	}
	return []string{string(b)}, nil
}

// runTasks scores exact answers in every format.
func (e *evaluation) runTasks() error {
	part, err := eval.ParsePart(e.part)
	if err != nil {
		return err
	}
	for _, name := range list(e.tasks) {
		task, length, err := e.task(name)
		if err != nil {
			return err
		}
		for _, format := range e.kvFormats() {
			r, err := eval.RunTask(e.c.Context(), e.subject, e.tok, task, format, length, e.cases, part, bar(e.c.ErrOrStderr(), name+" "+format))
			if err != nil {
				return err
			}
			e.report.Tasks = append(e.report.Tasks, r)
			if err := e.save(e.report); err != nil {
				return err
			}
		}
	}
	return nil
}

// task splits quote@512 into the task and the length of its prompts.
func (f *evalFlags) task(name string) (task string, length int, err error) {
	task, digits, own := strings.Cut(name, "@")
	if !own {
		return task, f.length, nil
	}
	if length, err = strconv.Atoi(digits); err != nil || length < 1 {
		return "", 0, fmt.Errorf("cannot read the length of task %q: write it as in quote@512", name)
	}
	return task, length, nil
}

// readEvalReport reads a file that --json wrote.
func readEvalReport(path string) (*eval.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read a report: %w", err)
	}
	defer f.Close()
	r, err := eval.ReadReport(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// mergeReports puts the reports of several runs together.
func (f *evalFlags) mergeReports(c *cobra.Command) error {
	var all *eval.Report
	for _, path := range f.merge {
		r, err := readEvalReport(path)
		if err != nil {
			return err
		}
		if all == nil {
			all = r
		} else if err := all.Merge(r); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	all.Joined()
	return f.finish(c, all)
}

// finish prints the report's table and keeps the report where asked.
func (f *evalFlags) finish(c *cobra.Command, r *eval.Report) error {
	if err := f.save(r); err != nil {
		return err
	}
	if err := f.savePage(r); err != nil {
		return err
	}
	text := r.Markdown()
	if f.depths > 0 {
		text += "\n" + r.Depths(f.depths)
	}
	_, err := fmt.Fprint(c.OutOrStdout(), text)
	return err
}

// save writes the report to the --json file, if there is one.
func (f *evalFlags) save(r *eval.Report) error {
	if f.json == "" {
		return nil
	}
	var b bytes.Buffer
	if err := r.JSON(&b); err != nil {
		return err
	}
	if err := os.WriteFile(f.json, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return nil
}
