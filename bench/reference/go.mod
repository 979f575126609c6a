module kachet.reference

go 1.23
