package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The keys of a terminal in its usual mode; the kernel makes signals and the end
// of input of them.
const (
	ctrlC = "\x03"
	ctrlD = "\x04"
)

// terminal is a program on a pseudo-terminal of its own, and what it showed.
type terminal struct {
	*process
	keys *os.File
	seen int // bytes of the screen that show has passed
}

// onTerminal starts the program on a terminal.
func onTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	// By SyscallConn: Fd would make reads block, and Close wait for them.
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	var failed error
	err = raw.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			number, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: "terse run", cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = screen, screen, screen
	dieWithParent(p.cmd)
	p.cmd.SysProcAttr.Setsid, p.cmd.SysProcAttr.Setctty = true, true // of standard input
	err = p.cmd.Start()
	screen.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(&p.log, master) }() // ends when the last one that has the terminal leaves it
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(p.stop)
	return &terminal{process: p, keys: master}
}

func (c *terminal) press(keys string) {
	c.t.Helper()
	if _, err := io.WriteString(c.keys, keys); err != nil {
		c.t.Fatal(err)
	}
}

// shows waits until a pattern comes after what the last call found, and returns
// its groups.
func (c *terminal) shows(pattern string) []string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	poll(func() bool {
		screen := c.log.String()
		at := re.FindStringSubmatchIndex(screen[c.seen:])
		if at == nil {
			return !c.running()
		}
		found = re.FindStringSubmatch(screen[c.seen:])
		c.seen += at[1]
		return true
	})
	if found == nil {
		c.t.Fatalf("the terminal never shows %q; since the last look (still running: %v):\n%q", pattern, c.running(), c.log.String()[c.seen:])
	}
	return found
}

// closing is the line that ends an answer: prompt tokens, tokens, and what moved.
const closing = `\[(\d+) prompt tokens.* · TTFT [0-9.]+m?s · (\d+) tokens at [0-9.]+/s · KV hq2: (.*)\]\r\n>>> `

// A conversation in a terminal: Ctrl-C stops the answer and not the program, a
// long prompt is split, Ctrl-D ends it.
func TestTerminal(t *testing.T) {
	// Sampled evenly, the model finds no end for thousands of tokens.
	c := onTerminal(t, "run", "--kv", "hq2", "--temperature", "2", "--top-p", "1", "--seed", "1", "--max-tokens", "6000")
	c.shows(`Ctrl-C stops an answer, Ctrl-D leaves.*\r\n>>> `)
	c.press("Tell me a story about Lily.\n")
	c.shows(`Lily\.\r\n(?s:.*?)\S`) // the echo of the keys, then the answer begins
	c.press(ctrlC)
	got := c.shows(closing)
	if n, err := strconv.Atoi(got[2]); err != nil || n >= 6000 || n < 1 {
		t.Errorf("stopped at once, the answer has %s tokens", got[2])
	}
	c.press("half a line" + ctrlC)
	c.shows(`Ctrl-D leaves\.\r\n>>> `)
	c.press("/clear\n")
	c.shows(`>>> `)
	c.press(strings.Repeat("The red box is in the garden, under the old stone. ", 25) + "Where is it?\n")
	c.shows(`Where is it\?\r\n(?s:.*?)\S`)
	c.press(ctrlC)
	if got = c.shows(closing); !regexp.MustCompile(`^[0-9.]+ [KM]iB moved, f16 would be [0-9.]+ [KM]iB \(\d\d %\)$`).MatchString(got[3]) {
		t.Errorf("%s prompt tokens moved: %s", got[1], got[3])
	}
	c.press(ctrlD)
	if status := c.exit(); status != 0 {
		t.Errorf("exit status %d after Ctrl-D", status)
	}
}

// One answer and the program with it end by Ctrl-C, a conversation that never
// began by Ctrl-D.
func TestTerminalInterrupt(t *testing.T) {
	c := onTerminal(t, "run", "--temperature", "2", "--top-p", "1", "--seed", "1", "--max-tokens", "6000", "Tell me a story about Lily.")
	c.shows(`\S`)
	c.press(ctrlC)
	c.shows(`\[\d+ prompt tokens.*\]\r\n`)
	if status := c.exit(); status != 130 {
		t.Errorf("exit status %d after Ctrl-C, want 130", status)
	}
	c = onTerminal(t, "run")
	c.shows(`>>> `)
	c.press(ctrlD)
	if status := c.exit(); status != 0 {
		t.Errorf("exit status %d after Ctrl-D", status)
	}
}
