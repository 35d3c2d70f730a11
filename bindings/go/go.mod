module sysbox.example/sysbox

go 1.24
