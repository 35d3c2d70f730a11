module sysbox.example/jobrunner

go 1.24

require sysbox.example/sysbox v0.0.0

replace sysbox.example/sysbox => ../../../bindings/go
