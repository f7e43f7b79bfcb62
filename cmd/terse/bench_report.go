package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse/bench/serving"
)

// newBenchReport is terse bench report.
func newBenchReport() *cobra.Command {
	var results, evals, out string
	c := &cobra.Command{
		Use:   "report TEMPLATE",
		Short: "Write a text from the results of terse bench serve",
		Long: `Fills a template with tables, plots and figures of files that 'terse bench serve --json'
wrote, so that no figure of a text is typed by hand. The functions of a template, where
NAME.json is in --results: {{title "NAME"}}, {{table "NAME"}}, {{plot "NAME"}},
{{cut "NAME" "hq2" "f16"}} (mean JCT against another's), {{jct "NAME" "hq2"}},
{{share "NAME" "hq2"}} (of float16's bytes), {{split "NAME" "hq2"}} (of requests),
{{commit "NAME"}} (the version that measured), and {{quality "NAME"}}, the table of a
report of 'terse eval --json' in --evals.`,
		Example: `  terse bench report docs/results/report.md.tmpl --out docs/report.md   # make report`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the template: %w", err)
			}
			doc, plots, err := serving.Document(os.DirFS(results), string(text), template.FuncMap{"quality": func(name string) (string, error) {
				return qualityTable(filepath.Join(evals, filepath.Base(name)+".json"))
			}})
			if err != nil {
				return err
			}
			files := map[string]string{out: doc}
			for name, svg := range plots {
				files[filepath.Join(results, name)] = svg
			}
			for _, path := range slices.Sorted(maps.Keys(files)) {
				if err := os.WriteFile(path, []byte(files[path]), 0o644); err != nil {
					return fmt.Errorf("cannot write the report: %w", err)
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&results, "results", "docs/results", "directory of the results")
	c.Flags().StringVar(&evals, "evals", "cmd/terse/testdata/eval", "directory of the reports on quality")
	c.Flags().StringVar(&out, "out", "docs/report.md", "file to write")
	return c
}

// qualityTable is the table of a report of terse eval.
func qualityTable(path string) (string, error) {
	r, err := readEvalReport(path)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(r.Markdown(), "\n"), nil
}
