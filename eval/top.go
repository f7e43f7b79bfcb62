package eval

import (
	"fmt"
	"strings"

	"github.com/terse-llm/terse/quant"
)

// topPlanes behind a format's name: answers read the codes of their prompt by the
// top planes, as where second planes come apart from the rest and not in time.
// Prompts are computed on all.
const topPlanes = "@top"

// parseFormat reads a format's name, and whether it is read by its top planes.
func parseFormat(name string, calibrated bool) (f quant.Format, top bool, err error) {
	name, top = strings.CutSuffix(name, topPlanes)
	f, err = quant.ParseFormat(name, calibrated)
	return f, top, err
}

// checkTop refuses formats that have only one plane, or choose what has a second.
func checkTop(g *quant.Geometry) error {
	if !g.HasSecond() || g.Format.Selects() {
		return fmt.Errorf("format %s has no second planes that could come apart: leave %s out", g.Format.Name, topPlanes)
	}
	return nil
}
