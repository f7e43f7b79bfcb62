package cuda

import (
	"iter"
	"runtime"
	"sync"
)

// What the host does for tests, most of their time, it does on all its cores: the
// device is one goroutine's, inputs are made ahead of it and results checked behind it.

// ahead gives prepare(0), prepare(1) … in order; what comes next is made on other
// cores meanwhile.
func ahead[T any](n int, prepare func(i int) T) iter.Seq[T] {
	return func(yield func(T) bool) {
		queue, stop := make(chan chan T, runtime.GOMAXPROCS(0)), make(chan struct{})
		defer close(stop)
		go func() {
			defer close(queue)
			for i := range n {
				c := make(chan T, 1)
				select {
				case queue <- c:
					go func() { c <- prepare(i) }()
				case <-stop:
					return
				}
			}
		}()
		for c := range queue {
			if !yield(<-c) {
				return
			}
		}
	}
}

// beside runs checks on other cores, a few at a time; its user waits for them.
type beside struct {
	sync.WaitGroup
	room chan struct{}
}

func newBeside() *beside { return &beside{room: make(chan struct{}, runtime.GOMAXPROCS(0))} }

func (b *beside) check(f func()) {
	b.room <- struct{}{}
	b.Go(func() {
		f()
		<-b.room
	})
}

// each runs f for every i below n on all cores.
func each(n int, f func(i int)) {
	var wait sync.WaitGroup
	for worker := range min(n, runtime.GOMAXPROCS(0)) {
		wait.Go(func() {
			for i := worker; i < n; i += runtime.GOMAXPROCS(0) {
				f(i)
			}
		})
	}
	wait.Wait()
}
