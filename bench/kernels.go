package bench

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"time"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
)

// KernelOptions say what to time.
type KernelOptions struct {
	Ops    kernels.Ops
	Level  cpu.Level      // of Ops, and of the limits
	Filter *regexp.Regexp // of the works' names; nil for all
	Time   time.Duration  // for all rounds together, about
	Log    func(string)   // is told what is being timed; may be nil
}

// Row is one kernel at one shape.
type Row struct {
	Name    string        `json:"name"`
	Group   string        `json:"group"`
	Unit    string        `json:"unit"`
	PerUnit float64       `json:"ns_per_unit"` // median
	Median  time.Duration `json:"median_ns"`
	Low     time.Duration `json:"quartile1_ns"`
	High    time.Duration `json:"quartile3_ns"`
	Rounds  int           `json:"rounds"`
	GBps    float64       `json:"GBps"`
	Gops    float64       `json:"Gops"`
	Floor   time.Duration `json:"floor_ns"`
	Bound   string        `json:"bound"`    // what sets the floor
	OfFloor float64       `json:"of_floor"` // median over floor
	// Base is what the row is compared with and Speed how many times as fast as
	// it the row is.
	Base  string  `json:"base,omitempty"`
	Speed float64 `json:"speed,omitempty"`
}

// KernelReport is what a run of Kernels found.
type KernelReport struct {
	Machine Machine `json:"machine"`
	Single  Limits  `json:"limits_1"` // of one thread
	All     Limits  `json:"limits"`   // of all threads used
	Rows    []Row   `json:"rows"`
}

// entry is a work being timed.
type entry struct {
	work  cases.Work
	timed *timed
}

// Kernels times the works of package cases, and the controls, group by group.
func Kernels(ctx context.Context, o KernelOptions) (*KernelReport, error) {
	works := selected(o)
	if len(works) == 0 {
		return nil, fmt.Errorf("there is no kernel whose name matches %q", o.Filter)
	}
	threads := o.Ops.Threads()
	buffers := make([][]byte, threads)
	for i := range buffers {
		buffers[i] = make([]byte, probeBytes)
		for at := 0; at < probeBytes; at += 512 {
			buffers[i][at] = 1 // pages that were never written are all one page of zeros
		}
	}
	probes := []*probe{newProbe(o.Level, 1, buffers), newProbe(o.Level, threads, buffers)}
	var groups [][]*entry
	for lo := 0; lo < len(works); {
		hi := lo + 1
		for hi < len(works) && works[hi].Group == works[lo].Group {
			hi++
		}
		group, err := runGroup(ctx, o, works[lo:hi], probes, o.Time*time.Duration(hi-lo)/time.Duration(len(works)))
		if err != nil {
			return nil, err
		}
		groups = append(groups, group)
		lo = hi
	}
	r := &KernelReport{Single: probes[0].limits, All: probes[1].limits}
	for _, g := range groups {
		r.addGroup(g)
	}
	return r, nil
}

// selected are the works that the filter wants, with those they are compared
// with.
func selected(o KernelOptions) []cases.Work {
	all := append(cases.Works(), controls(o.Level)...)
	want := map[string]bool{}
	for _, w := range all {
		if o.Filter == nil || o.Filter.MatchString(w.Name) {
			want[w.Name] = true
			if w.Base != "" {
				want[w.Base] = true
			}
		}
	}
	var some []cases.Work
	seen := map[string]bool{}
	for _, first := range all { // groups stay together, in the order of their first work
		if seen[first.Group] {
			continue
		}
		seen[first.Group] = true
		for _, w := range all {
			if w.Group == first.Group && want[w.Name] {
				some = append(some, w)
			}
		}
	}
	return some
}

// runGroup times works in turns with each other and with the probes.
func runGroup(ctx context.Context, o KernelOptions, works []cases.Work, probes []*probe, budget time.Duration) ([]*entry, error) {
	defer runtime.GC() // the group's inputs are large
	if o.Log != nil {
		o.Log(works[0].Group)
	}
	var group []*entry
	var all []*timed
	for _, w := range works {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e := &entry{work: w, timed: newTimed(w.Setup(o.Ops))}
		group, all = append(group, e), append(all, e.timed)
	}
	for _, p := range probes {
		for _, part := range p.parts {
			all = append(all, part.timed)
		}
	}
	runtime.GC()
	if err := rounds(ctx, all, budget); err != nil {
		return nil, err
	}
	for _, p := range probes {
		p.update()
	}
	for _, e := range group {
		e.work.Setup, e.timed.run = nil, nil // lets go of the inputs
	}
	return group, nil
}

// addGroup turns the times of a group into rows.
func (r *KernelReport) addGroup(group []*entry) {
	medians := map[string]time.Duration{}
	for _, e := range group {
		medians[e.work.Name] = e.timed.sample().Median
	}
	for _, e := range group {
		w, s := e.work, e.timed.sample()
		limits := &r.All
		if w.Serial {
			limits = &r.Single
		}
		row := Row{Name: w.Name, Group: w.Group, Unit: w.Unit, PerUnit: float64(s.Median) / w.Units,
			Median: s.Median, Low: s.Low, High: s.High, Rounds: s.Rounds,
			GBps: w.Bytes / float64(s.Median), Gops: (w.Flops + w.IntOps) / float64(s.Median)}
		bytes := w.Bytes
		if w.Cached {
			bytes = 0
		}
		row.Floor, row.Bound = limits.floor(bytes, w.Flops, w.IntOps)
		if row.Floor > 0 {
			row.OfFloor = float64(s.Median) / float64(row.Floor)
		}
		if base, ok := medians[w.Base]; ok {
			row.Base, row.Speed = w.Base, float64(base)/float64(s.Median)
		}
		r.Rows = append(r.Rows, row)
	}
}
