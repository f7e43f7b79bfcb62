package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/terse-llm/terse/internal/synthetic"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main with an exit code: 0 well, 1 failed, 2 called wrongly.
func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("shapes", flag.ContinueOnError)
	flags.SetOutput(stderr)
	name := flags.String("shape", "", "shape to write; without it, the shapes are listed")
	kind := flags.String("type", "q8_0", "type of the matrices: f32, f16, bf16, q8_0, q4_0, q4_k, q5_k or q6_k")
	out := flags.String("out", "", "GGUF file to write")
	seed := flags.Uint64("seed", 1, "of the weights")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if *name == "" {
		list(stdout)
		return 0
	}
	s, err := synthetic.ShapeOf(*name)
	dt, typeErr := synthetic.TypeOf(*kind)
	if err = errors.Join(err, typeErr); err == nil && *out == "" {
		err = errors.New("-out FILE is missing")
	}
	if err != nil {
		fmt.Fprintf(stderr, "shapes: %v\n", err)
		return 2
	}
	if err := synthetic.WriteFile(*out, s, dt, *seed); err != nil {
		fmt.Fprintf(stderr, "shapes: %v\n", err)
		return 1
	}
	fmt.Fprintf(stdout, "wrote %s: %s, %v, %.2f billion weights\n", *out, s.Name, dt, float64(s.Parameters())/1e9)
	return 0
}

func list(w io.Writer) {
	for _, s := range synthetic.Shapes() {
		fmt.Fprintf(w, "%-13s %2d layers, hidden %d, %d/%d heads of %d, MLP %d, vocabulary %d: %.2f billion weights\n",
			s.Name, s.Layers, s.Hidden, s.Heads, s.KVHeads, s.HeadDim, s.Inner, s.Vocab, float64(s.Parameters())/1e9)
	}
}
