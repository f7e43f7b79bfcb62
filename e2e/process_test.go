package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that must come; no test measures by
// it. A machine may be busy.
const patience = 2 * time.Minute

// process is a running program and everything it wrote.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	log  transcriptLog
	done chan struct{} // closed when it has exited
}

// start runs a command until the test ends at the latest. Its output goes to
// the test's log if the test fails.
func start(t *testing.T, name string, argv ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	dieWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("cannot start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // exit reads the status
		close(p.done)
	}()
	t.Cleanup(p.stop)
	return p
}

// stop ends the process, kindly at first.
func (p *process) stop() {
	if p.running() {
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(patience):
			p.signal(syscall.SIGKILL)
			<-p.done
			p.t.Errorf("%s did not stop within %v of SIGTERM", p.name, patience)
		}
	}
	if p.t.Failed() {
		p.t.Logf("output of %s (%v):\n%s", p.name, p.cmd.ProcessState, p.log.tail(8000))
	}
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("cannot signal %s: %v", p.name, err)
	}
}

// kill is what a crash of the machine looks like from outside.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// throttle leaves the process a tenth of its time, until release: however fast the
// machine, what it does can be interrupted. It still says that it lives, and works for
// others.
func (p *process) throttle() (release func()) {
	ended, released := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(released)
		for p.running() {
			p.signal(syscall.SIGSTOP)
			time.Sleep(90 * time.Millisecond)
			p.signal(syscall.SIGCONT)
			select {
			case <-ended:
				return
			case <-p.done:
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	release = sync.OnceFunc(func() {
		close(ended)
		<-released
	})
	p.t.Cleanup(release)
	return release
}

// exit waits for the process to end by itself and returns its status.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s is still running", p.name)
	}
	return p.cmd.ProcessState.ExitCode()
}

// awaitLog waits until the output matches and returns the first match's groups.
func (p *process) awaitLog(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	exited := false
	ok := poll(func() bool {
		exited = !p.running() // before the look: what was written is then there
		found = re.FindStringSubmatch(p.log.String())
		return found != nil || exited
	})
	if !ok || found == nil {
		p.t.Fatalf("%s never says %q (exited: %v); its output:\n%s", p.name, pattern, exited, p.log.tail(8000))
	}
	return found
}

// poll asks until the answer is yes, or patience ends.
func poll(ask func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ask() {
			return true
		}
	}
	return ask()
}

// transcriptLog is a buffer that may be written and read at the same time.
type transcriptLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *transcriptLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *transcriptLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *transcriptLog) tail(n int) string {
	s := l.String()
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}
