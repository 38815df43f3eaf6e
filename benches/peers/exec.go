// The peer of the exec bench: goroutines that start children and wait for them.
//
//	exec CHILDREN WORKERS PROGRAM bare|guarded
//
// `guarded` does what Lamplighter always does: a deadline, a process group of its own, output read to its end.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	children, _ := strconv.Atoi(os.Args[1])
	workers, _ := strconv.Atoi(os.Args[2])
	program, guarded := os.Args[3], os.Args[4] == "guarded"
	places := make(chan int)
	var group sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for range places {
				if err := run(program, guarded); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
			}
		}()
	}
	for place := 0; place < children; place++ {
		places <- place
	}
	close(places)
	group.Wait()
}

func run(program string, guarded bool) error {
	if !guarded {
		return exec.Command(program).Run()
	}
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	command := exec.CommandContext(ctx, program)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	_, err := command.CombinedOutput()
	return err
}
