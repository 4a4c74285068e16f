variable "name" {
  description = "What everything is called and tagged with: SPACEPORT_EC2_OWNER of the worker. Two teams in one account take two names."
  type        = string
  default     = "spaceport"
}

variable "bucket" {
  description = "Name of the bucket for checkpoints, to be made."
  type        = string
}

variable "vpc_id" {
  description = "The network that the machines stand in. They must reach the Hub, the Prefect API and AWS from it. If it isn't the account's default one, the pool's zones must be subnets of it (subnet-...)."
  type        = string
}

variable "image_id" {
  description = "The AMI of the launch template; it holds Python and the project. The pool's image goes first."
  type        = string
}

variable "root_device" {
  description = "What the image calls its disk: /dev/xvda for Amazon Linux, /dev/sda1 for Ubuntu."
  type        = string
  default     = "/dev/xvda"
}

variable "volume_gib" {
  description = "Disk of a machine: data set, base model and two checkpoints."
  type        = number
  default     = 200
}

variable "checkpoint_days" {
  description = "How long overwritten and deleted checkpoints can be brought back."
  type        = number
  default     = 7
}
