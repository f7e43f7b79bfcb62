package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse/eval"
)

// newEvalConvert is terse eval convert: task files of published data sets.
func newEvalConvert() *cobra.Command {
	var from string
	var cases, size int
	c := &cobra.Command{
		Use:   "convert --from SET FILE > TASKS.jsonl",
		Short: "Make a task file of a data set",
		Long: `Makes cases for terse eval --task-file of a data set's own file: HumanEval's JSON lines
(functions to complete, scored by edit similarity), the zip of Pang and Lee's movie reviews
(positive or negative, accuracy), SciTLDR's JSON lines (a sentence that sums an abstract up,
ROUGE-1) or FairytaleQA's stories as JSON lines (the number of the paragraph that has a
sentence, accuracy). JSON lines may be gzipped. Prompts are filled with other cases and
their answers up to --size bytes, so that there is a cache to speak of.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{c.CommandPath(), fmt.Errorf("it takes one file, not %d", len(args))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if cases < 0 || size < 1 {
				return usageError{c.CommandPath(), fmt.Errorf("--cases is at least 0, --size at least 1")}
			}
			data, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the data set: %w", err)
			}
			made, err := eval.Convert(from, data, cases, size)
			if err != nil {
				return err
			}
			return eval.WriteTaskFile(c.OutOrStdout(), made)
		},
	}
	c.Flags().StringVar(&from, "from", "", "the data set: "+strings.Join(eval.Sources(), ", "))
	c.Flags().IntVar(&cases, "cases", 0, "cases at most (default: all)")
	c.Flags().IntVar(&size, "size", 8000, "bytes of a prompt")
	return c
}
