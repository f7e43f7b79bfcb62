package bench

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/terse-llm/terse/internal/cpu"
)

// Machine says where figures were measured, and of what.
type Machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`   // that the process may use
	Threads int    `json:"threads"` // that were used
	Level   string `json:"level"`   // instructions used
	Levels  string `json:"levels"`  // instructions that could be used
	System  string `json:"system"`
	Version string `json:"version"` // of terse, with the commit
	Backend string `json:"backend"`
}

// NewMachine describes this machine. version is terse's.
func NewMachine(threads int, level cpu.Level, version, backend string) Machine {
	var levels []string
	for _, l := range cpu.Levels() {
		levels = append(levels, l.String())
	}
	return Machine{
		CPU: processor(), Cores: runtime.GOMAXPROCS(0), Threads: threads, Level: level.String(), Levels: strings.Join(levels, " "),
		System: runtime.GOOS + "/" + runtime.GOARCH + " " + runtime.Version(), Version: version, Backend: backend,
	}
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores; %d threads, %s (has %s); %s; terse %s, backend %s",
		m.CPU, m.Cores, m.Threads, m.Level, m.Levels, m.System, m.Version, m.Backend)
}

// processor is the processor's name as the system gives it.
func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
