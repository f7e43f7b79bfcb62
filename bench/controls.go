package bench

import "github.com/terse-llm/terse/kernels/kerneltest/cases"

// controls are the kernels that others are held against and that no model runs.
func controls() []cases.Work { return nil }
