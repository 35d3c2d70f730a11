package sysbox

import (
	"encoding/json"
	"time"
)

// Status says how far a container is in its life.
type Status string

// The life of a container.
const (
	StatusCreating Status = "creating" // being made, or its maker died
	StatusCreated  Status = "created"  // its program waits for Start
	StatusRunning  Status = "running"
	StatusPaused   Status = "paused"
	StatusStopped  Status = "stopped" // its init has ended; it is to be deleted
	StatusDamaged  Status = "damaged" // its state cannot be read; it can only be deleted, with force
)

// State is the state of a container, as the OCI runtime specification has it, and a little more.
type State struct {
	OCIVersion  string
	ID          string
	Status      Status
	Pid         int // of its init, as the host numbers processes; 0 unless it lives
	Bundle      string
	Rootfs      string
	Created     time.Time // zero if it is not known
	Annotations map[string]string
}

// UnmarshalJSON reads what the library writes.
func (s *State) UnmarshalJSON(doc []byte) error {
	var d struct {
		OCIVersion  string
		ID          string
		Status      Status
		Pid         int
		Bundle      string
		Rootfs      string
		Created     int64
		Annotations map[string]string
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		return err
	}
	*s = State{d.OCIVersion, d.ID, d.Status, d.Pid, d.Bundle, d.Rootfs, time.Time{}, d.Annotations}
	if d.Created != 0 {
		s.Created = time.Unix(0, d.Created)
	}
	return nil
}

// Stats is what a container uses, all its processes together, those of containers inside included. Sizes are in bytes. What is nil is not
// known on this host.
type Stats struct {
	CPU    *CPUStats    `json:"cpu"`
	Memory *MemoryStats `json:"memory"`
	Pids   *PidsStats   `json:"pids"`
	IO     []DeviceIO   `json:"io"`
	// Hugetlb is by page size, as in 2MB.
	Hugetlb map[string]HugetlbStats `json:"hugetlb"`
}

// CPUStats is time on CPUs.
type CPUStats struct {
	Total  time.Duration   `json:"total"`
	User   time.Duration   `json:"user"`
	Kernel time.Duration   `json:"kernel"`
	PerCPU []time.Duration `json:"percpu"` // cgroup v1 only
	// Throttling is what the container's own limit has done.
	Throttling *Throttling `json:"throttling"`
}

// Throttling is how often and how long processes had to wait for their share of CPU.
type Throttling struct {
	Periods          uint64        `json:"periods"`
	ThrottledPeriods uint64        `json:"throttled_periods"`
	ThrottledTime    time.Duration `json:"throttled_time"`
}

// MemoryStats is memory in use.
type MemoryStats struct {
	Cache    *uint64           `json:"cache"` // of files, which includes tmpfs
	Memory   Usage             `json:"memory"`
	WithSwap Usage             `json:"with_swap"`
	Kernel   Usage             `json:"kernel"`
	Sockets  Usage             `json:"sockets"`
	Raw      map[string]uint64 `json:"raw"` // memory.stat as it is
}

// Usage is one kind of memory.
type Usage struct {
	Usage    *uint64 `json:"usage"`
	Max      *uint64 `json:"max"`   // the most that ever was
	Limit    *uint64 `json:"limit"` // nil: none
	Failures *uint64 `json:"failures"`
}

// PidsStats is processes and threads.
type PidsStats struct {
	Current uint64  `json:"current"`
	Limit   *uint64 `json:"limit"` // nil: none
}

// DeviceIO is what has been read from and written to a block device.
type DeviceIO struct {
	Major          uint32 `json:"major"`
	Minor          uint32 `json:"minor"`
	ReadBytes      uint64 `json:"read_bytes"`
	WrittenBytes   uint64 `json:"written_bytes"`
	DiscardedBytes uint64 `json:"discarded_bytes"`
	Reads          uint64 `json:"reads"`
	Writes         uint64 `json:"writes"`
	Discards       uint64 `json:"discards"`
}

// HugetlbStats is huge pages of one size.
type HugetlbStats struct {
	Usage    uint64  `json:"usage"`
	Max      *uint64 `json:"max"`
	Failures uint64  `json:"failures"`
}
